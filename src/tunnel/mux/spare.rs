//! [`Spare`]: a part that most values of its kind do without.

/// A part that is made when it is needed. It stays for the next time, and is given back when it was not needed for a while.
#[derive(Debug, Default)]
pub(super) struct Spare<T>(Option<Box<Kept<T>>>);

#[derive(Debug, Default)]
struct Kept<T> {
    part: T,
    /// How often it may still be of no use.
    patience: u8,
}

/// A busy stream now and then does without; its buffers are for the next time.
pub(super) const PATIENCE: u8 = 16;

impl<T: Default> Spare<T> {
    /// The part, which is of use now.
    pub(super) fn needed(&mut self) -> &mut T {
        let kept = self.0.get_or_insert_default();
        kept.patience = PATIENCE;
        &mut kept.part
    }

    /// It was of no use this time.
    pub(super) fn unneeded(&mut self) {
        if let Some(kept) = &mut self.0 {
            match kept.patience.checked_sub(1) {
                Some(patience) => kept.patience = patience,
                None => self.0 = None,
            }
        }
    }

    pub(super) fn get(&self) -> Option<&T> {
        self.0.as_ref().map(|kept| &kept.part)
    }

    pub(super) fn get_mut(&mut self) -> Option<&mut T> {
        self.0.as_mut().map(|kept| &mut kept.part)
    }
}
