//! [`Decoder`]: bytes in, events out; no I/O.

use bytes::{Buf, Bytes, BytesMut};

use super::{
    CloseReason, MessageEnd, MessageKind, Role,
    error::Violation,
    frame::{FrameHeader, MAX_CONTROL_PAYLOAD, MAX_HEADER, Opcode},
    mask,
};

/// Takes frames apart, in place.
///
/// ```text
///            header of a data frame           header + whole payload of a control frame
///         ┌───────────────────────────┐       ┌───────┐
///         ▼                           │       ▼       │
///   ┌─ Payload ─┐  remaining == 0  ┌──┴───────────────┴──┐   any violation   ┌────────┐
///   │ a piece   ├─────────────────►│       Header        ├──────────────────►│ Failed │
///   └───────────┘                  └─────────────────────┘                   └────────┘
/// ```
///
/// A data frame's payload leaves as it arrives, so what stays in the buffer between two calls is an incomplete header
/// or control frame: less than [`MAX_UNDECODED`].
pub(super) struct Decoder {
    role: Role,
    state: State,
    /// The type of the message whose last frame has not been seen.
    message: Option<MessageKind>,
    /// After the peer's Close its data is discarded (RFC 6455 section 1.4); control frames still count.
    is_closed: bool,
}

/// What the decoder may leave in the buffer while it waits for more.
pub(super) const MAX_UNDECODED: usize = MAX_HEADER + MAX_CONTROL_PAYLOAD;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    Data {
        kind: MessageKind,
        payload: Bytes,
        end: MessageEnd,
    },
    Close(Option<CloseReason>),
    Ping(Bytes),
    Pong,
}

enum State {
    Header,
    Payload {
        header: FrameHeader,
        kind: MessageKind,
        /// How much of the payload was delivered.
        offset: u64,
    },
    Failed(Violation),
}

impl Decoder {
    pub(super) fn new(role: Role) -> Self {
        Self {
            role,
            state: State::Header,
            message: None,
            is_closed: false,
        }
    }

    /// Takes the next event off the front of `input`; `None` when more input is needed.
    ///
    /// # Errors
    /// The violation, now and on every later call.
    pub(super) fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Decoded>, Violation> {
        let result = self.next(input);
        if let Err(violation) = &result {
            self.state = State::Failed(*violation);
        }
        result
    }

    fn next(&mut self, input: &mut BytesMut) -> Result<Option<Decoded>, Violation> {
        loop {
            let decoded = match &self.state {
                State::Failed(violation) => return Err(*violation),
                State::Header => {
                    let Some((header, used)) = FrameHeader::parse(input, self.role)? else {
                        return Ok(None);
                    };
                    if header.opcode.is_control() {
                        // Fits: `parse` has checked it against `MAX_CONTROL_PAYLOAD`.
                        if input.len() < used + header.length as usize {
                            return Ok(None);
                        }
                        input.advance(used);
                        self.control(header, input)?
                    } else {
                        let kind = self.begin(&header)?;
                        input.advance(used);
                        self.state = State::Payload {
                            header,
                            kind,
                            offset: 0,
                        };
                        None
                    }
                }
                &State::Payload {
                    header,
                    kind,
                    offset,
                } => {
                    if input.is_empty() && offset < header.length {
                        return Ok(None);
                    }
                    self.piece(header, kind, offset, input)
                }
            };
            if decoded.is_some() {
                return Ok(decoded);
            }
        }
    }

    /// Checks a data frame's header against the message that is under way.
    fn begin(&self, header: &FrameHeader) -> Result<MessageKind, Violation> {
        let starts = match header.opcode {
            Opcode::Text => Some(MessageKind::Text),
            Opcode::Binary => Some(MessageKind::Binary),
            _ => None,
        };
        match (self.message, starts) {
            (None, Some(kind)) | (Some(kind), None) => Ok(kind),
            (None, None) => Err(Violation::StrayContinuation),
            (Some(_), Some(_)) => Err(Violation::InterruptedMessage),
        }
    }

    /// Takes what is there of a data frame's payload. An empty piece is worth an event only if it ends the message.
    fn piece(
        &mut self,
        header: FrameHeader,
        kind: MessageKind,
        offset: u64,
        input: &mut BytesMut,
    ) -> Option<Decoded> {
        let remaining = header.length - offset;
        let size = usize::try_from(remaining).map_or(input.len(), |all| all.min(input.len()));
        let mut payload = input.split_to(size);
        if let Some(key) = header.mask {
            mask::apply(&mut payload, key, offset);
        }

        let is_frame_done = size as u64 == remaining;
        if is_frame_done {
            self.state = State::Header;
            self.message = (!header.is_final).then_some(kind);
        } else {
            self.state = State::Payload {
                header,
                kind,
                offset: offset + size as u64,
            };
        }

        let end = if is_frame_done && header.is_final {
            MessageEnd::Last
        } else {
            MessageEnd::More
        };
        let is_worth_an_event = !payload.is_empty() || end == MessageEnd::Last;
        (is_worth_an_event && !self.is_closed).then(|| Decoded::Data {
            kind,
            payload: payload.freeze(),
            end,
        })
    }

    fn control(
        &mut self,
        header: FrameHeader,
        input: &mut BytesMut,
    ) -> Result<Option<Decoded>, Violation> {
        let mut payload = input.split_to(header.length as usize);
        if let Some(key) = header.mask {
            mask::apply(&mut payload, key, 0);
        }
        Ok(match header.opcode {
            Opcode::Ping => Some(Decoded::Ping(payload.freeze())),
            Opcode::Pong => Some(Decoded::Pong),
            _ => {
                let reason = CloseReason::parse(&payload)?;
                let is_first = !std::mem::replace(&mut self.is_closed, true);
                is_first.then_some(Decoded::Close(reason))
            }
        })
    }
}
