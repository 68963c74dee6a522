//! The model disk's dice. Seeded, tiny, and the same on every platform; not for anything secret.

/// SplitMix64.
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..=max`.
    pub(super) fn up_to(&mut self, max: usize) -> usize {
        let span = (max as u64).saturating_add(1);
        usize::try_from(self.roll() % span.max(1)).unwrap_or(0)
    }

    pub(super) fn coin(&mut self) -> bool {
        self.roll() & 1 == 1
    }
}
