//! A square of numbers on the way between rows of members and lanes.

use super::data::MOST_LANES;
use super::lanes::Scalar;

/// As many sites of as many members as there are lanes.
pub struct Tile<T> {
    numbers: [T; MOST_LANES * MOST_LANES],
}

impl<T: Scalar> Tile<T> {
    /// All zeros.
    #[inline(always)]
    pub fn new() -> Self {
        Self { numbers: [T::from_f32(0.0); MOST_LANES * MOST_LANES] }
    }

    /// The rows of a square of `lanes`.
    #[inline(always)]
    pub fn rows(&mut self, lanes: usize) -> std::slice::ChunksExactMut<'_, T> {
        self.numbers[..lanes * lanes].chunks_exact_mut(lanes)
    }

    /// Swaps rows and columns of a square of `lanes`, a power of two: that many perfect shuffles of the whole, each of
    /// which is vector instructions, where a walk down the columns would be scalar.
    #[inline(always)]
    pub fn transpose(&mut self, lanes: usize) {
        let half = lanes * lanes / 2;
        for _ in 0..lanes.trailing_zeros() {
            let old = self.numbers;
            let (low, high) = old[..2 * half].split_at(half);
            for (pair, (low, high)) in self.numbers.as_chunks_mut::<2>().0.iter_mut().zip(low.iter().zip(high)) {
                *pair = [*low, *high];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Tile;

    #[test]
    fn a_tile_swaps_rows_and_columns() {
        for lanes in [1, 2, 4, 8, 16] {
            let mut tile = Tile::<f64>::new();
            for (i, row) in tile.rows(lanes).enumerate() {
                for (j, v) in row.iter_mut().enumerate() {
                    *v = (100 * i + j) as f64;
                }
            }
            tile.transpose(lanes);
            for (i, row) in tile.rows(lanes).enumerate() {
                for (j, v) in row.iter().enumerate() {
                    assert_eq!(*v, (100 * j + i) as f64);
                }
            }
        }
    }
}
