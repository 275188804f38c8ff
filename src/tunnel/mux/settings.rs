//! What each side tells the other first.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::violation::Violation;

/// The first bytes in both directions.
pub(super) const PREFACE: [u8; 4] = *b"ACC1";

/// The version of the protocol that this code speaks.
pub(super) const VERSION: u32 = 1;

/// What a SETTINGS frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) version: u32,
    /// Bytes that may be sent on each stream before its first CREDIT.
    pub(super) initial_stream_window: u32,
    /// Streams that the receiver of the frame may open before the first MAX_STREAMS.
    pub(super) max_streams: u32,
    /// The longest frame that the sender of the frame takes, header included.
    pub(super) max_frame: u32,
    /// Bits 0 to 31 may be ignored by who does not know them; an unknown bit from 32 on ends the session.
    pub(super) features: u64,
}

/// Features that who does not know them must refuse; the others he may leave alone.
const REQUIRED_FEATURES: u64 = !0 << 32;

impl Settings {
    pub(super) const LENGTH: usize = 24;

    /// What holds until the peer's SETTINGS arrived. A SETTINGS frame may only raise these, so that what was
    /// sent before it arrived stays allowed.
    pub(super) const INITIAL: Self = Self {
        version: VERSION,
        // Also the floor that every stream is always granted: see `flow`.
        initial_stream_window: 16 * 1024,
        // Enough for what a client opens within its first round trip.
        max_streams: 16,
        // One TLS record.
        max_frame: 16 * 1024,
        features: 0,
    };

    pub(super) fn encode(&self, out: &mut BytesMut) {
        out.put_u32(self.version);
        out.put_u32(self.initial_stream_window);
        out.put_u32(self.max_streams);
        out.put_u32(self.max_frame);
        out.put_u64(self.features);
    }

    /// Reads a payload of exactly [`LENGTH`](Self::LENGTH) bytes.
    pub(super) fn decode(mut payload: Bytes) -> Result<Self, Violation> {
        debug_assert_eq!(payload.len(), Self::LENGTH);
        let settings = Self {
            version: payload.get_u32(),
            initial_stream_window: payload.get_u32(),
            max_streams: payload.get_u32(),
            max_frame: payload.get_u32(),
            features: payload.get_u64(),
        };
        // The version comes first: nothing else of an unknown version means anything.
        if settings.version != VERSION {
            return Err(Violation::Version(settings.version));
        }
        if settings.features & REQUIRED_FEATURES != 0 {
            return Err(Violation::RequiredFeatures(
                settings.features & REQUIRED_FEATURES,
            ));
        }
        let lowest = [
            (
                "initial stream window",
                settings.initial_stream_window,
                Self::INITIAL.initial_stream_window,
            ),
            (
                "stream limit",
                settings.max_streams,
                Self::INITIAL.max_streams,
            ),
            ("frame limit", settings.max_frame, Self::INITIAL.max_frame),
        ];
        for (name, value, least) in lowest {
            if value < least {
                return Err(Violation::SettingTooLow { name, value, least });
            }
        }
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(settings: Settings) -> Result<Settings, Violation> {
        let mut out = BytesMut::new();
        settings.encode(&mut out);
        Settings::decode(out.freeze())
    }

    #[test]
    fn the_initial_settings_are_the_least() {
        assert_eq!(decode(Settings::INITIAL), Ok(Settings::INITIAL));
        let narrow = Settings {
            initial_stream_window: 16 * 1024 - 1,
            ..Settings::INITIAL
        };
        assert!(matches!(
            decode(narrow),
            Err(Violation::SettingTooLow {
                name: "initial stream window",
                ..
            })
        ));
    }

    #[test]
    fn only_required_features_are_refused() {
        let optional = Settings {
            features: 0xffff_ffff,
            ..Settings::INITIAL
        };
        assert_eq!(decode(optional), Ok(optional));
        let required = Settings {
            features: 1 << 40,
            ..Settings::INITIAL
        };
        assert_eq!(decode(required), Err(Violation::RequiredFeatures(1 << 40)));
    }

    #[test]
    fn another_version_is_refused_before_anything_else() {
        let future = Settings {
            version: 2,
            max_frame: 0,
            ..Settings::INITIAL
        };
        assert_eq!(decode(future), Err(Violation::Version(2)));
    }
}
