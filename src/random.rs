//! Counter-based random numbers, keyed by their purpose.
//!
//! This module owns all random numbers that a result depends on; no other module has a random number generator. A [`Key`] is derived from
//! the pipeline's seed and then narrowed by named values: scan digest, organ, variant, attempt, purpose. Keys with different
//! derivations are independent, and the same key returns the same numbers on every thread, worker and machine. Transcendental functions
//! are those of `libm`, so that results do not depend on the mathematics library of the system.
//!
//! ```
//! use freetumor::random::Key;
//!
//! let tumor = Key::root(2024).with("scan", "9f86d081").with("organ", "liver").number("attempt", 3);
//! let mut random = tumor.stream("site");
//! let again = tumor.stream("site").uniform(0.0, 1.0);
//! assert_eq!(random.uniform(0.0, 1.0), again);
//! assert_ne!(tumor.stream("texture").uniform(0.0, 1.0), again);
//! ```

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use sha2::{Digest, Sha256};

/// A 256-bit key; see the [module](self).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Key([u8; 32]);

impl Key {
    /// Returns the key of a pipeline.
    pub fn root(seed: u64) -> Self {
        Self(Sha256::new_with_prefix(b"freetumor").chain_update(seed.to_le_bytes()).finalize().into())
    }

    /// Derives a key from this key and a named value. Lengths are hashed too, so that no two derivations collide.
    #[must_use]
    pub fn with(self, name: &str, value: &str) -> Self {
        let hash = Sha256::new_with_prefix(self.0)
            .chain_update((name.len() as u64).to_le_bytes())
            .chain_update(name)
            .chain_update((value.len() as u64).to_le_bytes())
            .chain_update(value);
        Self(hash.finalize().into())
    }

    /// Derives a key from this key and a named number.
    #[must_use]
    pub fn number(self, name: &str, number: u64) -> Self {
        self.with(name, &number.to_string())
    }

    /// Returns the random stream for one purpose.
    pub fn stream(self, purpose: &str) -> RandomStream {
        RandomStream(ChaCha8Rng::from_seed(self.with("purpose", purpose).0))
    }
}

/// A stream of random numbers.
pub struct RandomStream(ChaCha8Rng);

impl RandomStream {
    /// Returns a uniform number in `low..high`, with 53 random bits.
    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        let unit = (self.0.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64);
        low + (high - low) * unit
    }

    /// Returns a uniform number in `0..1` with 24 random bits. It is computed faster than with [`uniform`](Self::uniform), for volumes of
    /// noise.
    pub fn unit_f32(&mut self) -> f32 {
        unit_f32(self.0.next_u32())
    }

    /// Fills `values` with the numbers that one call of [`unit_f32`](Self::unit_f32) for each value would return, but in less time.
    pub fn fill_unit_f32(&mut self, values: &mut [f32]) {
        let mut bytes = [0u8; 256];
        for values in values.chunks_mut(64) {
            let bytes = &mut bytes[..4 * values.len()];
            self.0.fill_bytes(bytes);
            for (value, word) in values.iter_mut().zip(bytes.as_chunks().0) {
                *value = unit_f32(u32::from_le_bytes(*word));
            }
        }
    }

    /// Skips the numbers that `count` calls of [`unit_f32`](Self::unit_f32) would return.
    pub fn skip_unit_f32(&mut self, count: usize) {
        self.0.set_word_pos(self.0.get_word_pos() + count as u128);
    }

    /// Returns 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Returns a uniform index in `0..count`, without bias.
    ///
    /// # Panics
    /// If `count` is zero.
    pub fn index(&mut self, count: usize) -> usize {
        assert!(count > 0, "expected at least one index");
        let count = count as u64;
        // Lemire's multiply-and-shift: reject the few values that would favour small indices.
        let threshold = count.wrapping_neg() % count;
        loop {
            let wide = u128::from(self.0.next_u64()) * u128::from(count);
            if wide as u64 >= threshold {
                return (wide >> 64) as usize;
            }
        }
    }

    /// Returns true with the given probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.uniform(0.0, 1.0) < probability
    }

    /// Returns a normally distributed number (Box and Muller).
    pub fn normal(&mut self, mean: f64, deviation: f64) -> f64 {
        let radius = libm::sqrt(-2.0 * libm::log(1.0 - self.uniform(0.0, 1.0)));
        mean + deviation * radius * libm::cos(std::f64::consts::TAU * self.uniform(0.0, 1.0))
    }

    /// Returns a uniform direction on the unit sphere.
    pub fn direction(&mut self) -> [f64; 3] {
        let z = self.uniform(-1.0, 1.0);
        let angle = self.uniform(0.0, std::f64::consts::TAU);
        let radius = libm::sqrt(1.0 - z * z);
        [radius * libm::cos(angle), radius * libm::sin(angle), z]
    }
}

/// Returns a number in `0..1` from 24 bits of a word.
#[inline(always)]
fn unit_f32(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / (1u32 << 24) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filled_and_skipped_numbers_equal_numbers_of_single_calls() {
        let (mut one_by_one, mut at_once) = (Key::root(5).stream("test"), Key::root(5).stream("test"));
        for (filled, skipped) in [(3, 1), (0, 200), (130, 0), (64, 64), (1, 7)] {
            assert_eq!(one_by_one.uniform(0.0, 1.0), at_once.uniform(0.0, 1.0));
            let expected: Vec<f32> = (0..filled).map(|_| one_by_one.unit_f32()).collect();
            let mut values = vec![0.0; filled];
            at_once.fill_unit_f32(&mut values);
            assert_eq!(values, expected);
            for _ in 0..skipped {
                one_by_one.unit_f32();
            }
            at_once.skip_unit_f32(skipped);
        }
        assert_eq!(one_by_one.unit_f32(), at_once.unit_f32());
    }

    #[test]
    fn keys_distinguish_name_from_value() {
        let root = Key::root(1);
        assert_ne!(root.with("ab", "c"), root.with("a", "bc"));
        assert_ne!(root.with("a", "b").with("c", "d"), root.with("c", "d").with("a", "b"));
    }

    #[test]
    fn index_is_uniform() {
        let mut random = Key::root(3).stream("test");
        let mut counts = [0usize; 7];
        for _ in 0..70_000 {
            counts[random.index(7)] += 1;
        }
        assert!(counts.iter().all(|count| (9_600..10_400).contains(count)), "{counts:?}");
    }

    #[test]
    fn normal_has_requested_moments() {
        let mut random = Key::root(4).stream("test");
        let values: Vec<f64> = (0..100_000).map(|_| random.normal(2.0, 3.0)).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64;
        assert!((mean - 2.0).abs() < 0.05 && (variance.sqrt() - 3.0).abs() < 0.05, "{mean} {variance}");
    }
}
