//! Repeatable randomness: SplitMix64 (Steele, Lea, Flood 2014).

/// A generator with a seed.
pub struct Rng(u64);

impl Rng {
    /// The generator of one item of a run, so that each item can be repeated alone.
    pub fn of(seed: u64, item: u64) -> Self {
        let mut rng = Self(seed ^ item.wrapping_mul(0xd134_2543_de82_ef95));
        rng.draw();
        rng
    }

    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which must not be 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.draw() % bound.max(1) as u64) as usize
    }

    /// One of the choices.
    pub fn pick<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[self.below(choices.len())]
    }
}
