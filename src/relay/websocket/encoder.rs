//! [`Encoder`]: pieces in, bytes out; no I/O.

use bytes::{Bytes, BytesMut};

use super::{
    CloseReason, MessageEnd, MessageKind, Outgoing, Role,
    frame::{FrameHeader, MAX_CONTROL_PAYLOAD, MAX_HEADER, Opcode},
    mask::{self, MaskKeys},
    outbox::{MIN_SHARED, Outbox},
};

/// Builds frames at the end of a buffer: one copy, masked in place.
pub(super) struct Encoder {
    /// A client's; a server does not mask.
    mask_keys: Option<MaskKeys>,
    /// A message was begun and not ended: the next piece is a continuation.
    is_in_message: bool,
    is_closed: bool,
}

impl Encoder {
    pub(super) fn new(role: Role) -> Self {
        Self {
            mask_keys: match role {
                Role::Client => Some(MaskKeys::new()),
                Role::Server => None,
            },
            is_in_message: false,
            is_closed: false,
        }
    }

    /// Whether a Close was sent, after which only pings and pongs may follow.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Appends one frame to `out`. Data and Close after a Close are dropped: the protocol has no place for them.
    pub(super) fn encode(&mut self, piece: Outgoing<'_>, out: &mut BytesMut) {
        match piece {
            Outgoing::Data { kind, payload, end } => {
                if self.is_closed {
                    return;
                }
                let opcode = self.data_opcode(kind, end);
                self.frame(opcode, end, payload, out);
            }
            Outgoing::Close(reason) => {
                if std::mem::replace(&mut self.is_closed, true) {
                    return;
                }
                let payload = reason.map_or_else(Vec::new, CloseReason::to_payload);
                self.frame(Opcode::Close, MessageEnd::Last, &payload, out);
            }
            Outgoing::Ping(payload) => {
                self.frame(Opcode::Ping, MessageEnd::Last, cut(payload), out)
            }
            Outgoing::Pong(payload) => {
                self.frame(Opcode::Pong, MessageEnd::Last, cut(payload), out)
            }
        }
    }

    /// Appends a frame of data to `out`, its payload without a copy if that is worth it and nothing is masked.
    pub(super) fn encode_shared(
        &mut self,
        kind: MessageKind,
        payload: Bytes,
        end: MessageEnd,
        out: &mut Outbox,
    ) {
        if self.mask_keys.is_some() || payload.len() < MIN_SHARED {
            let payload = &payload;
            self.encode(Outgoing::Data { kind, payload, end }, out.tail());
        } else if !self.is_closed {
            let header = FrameHeader {
                opcode: self.data_opcode(kind, end),
                is_final: end == MessageEnd::Last,
                mask: None,
                length: payload.len() as u64,
            };
            out.tail().reserve(MAX_HEADER);
            header.encode(out.tail());
            out.share(payload);
        }
    }

    fn data_opcode(&mut self, kind: MessageKind, end: MessageEnd) -> Opcode {
        let is_in_message = std::mem::replace(&mut self.is_in_message, end == MessageEnd::More);
        match (is_in_message, kind) {
            (true, _) => Opcode::Continuation,
            (false, MessageKind::Text) => Opcode::Text,
            (false, MessageKind::Binary) => Opcode::Binary,
        }
    }

    fn frame(&mut self, opcode: Opcode, end: MessageEnd, payload: &[u8], out: &mut BytesMut) {
        let mask = self.mask_keys.as_mut().map(MaskKeys::next_key);
        let header = FrameHeader {
            opcode,
            is_final: end == MessageEnd::Last,
            mask,
            length: payload.len() as u64,
        };
        out.reserve(MAX_HEADER + payload.len());
        header.encode(out);
        let start = out.len();
        out.extend_from_slice(payload);
        if let Some(key) = mask {
            mask::apply(&mut out[start..], key, 0);
        }
    }
}

fn cut(payload: &[u8]) -> &[u8] {
    &payload[..payload.len().min(MAX_CONTROL_PAYLOAD)]
}
