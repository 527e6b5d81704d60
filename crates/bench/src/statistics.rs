//! Medians and percentiles.

/// A count as a number to calculate with; exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "no count of a measurement comes near 2^53")]
pub fn count(of: u64) -> f64 {
    of as f64
}

/// Middle of the values; the lower of two. Zero if there are none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
}

/// Smallest and largest of the values; zeros if there are none.
pub fn range(values: &[f64]) -> (f64, f64) {
    let smallest = values.iter().copied().reduce(f64::min).unwrap_or(0.0);
    (smallest, values.iter().copied().reduce(f64::max).unwrap_or(0.0))
}

/// The value below which `per_mille` of 1000 values lie. The values get sorted. Zero if there are none.
pub fn percentile(values: &mut [u32], per_mille: usize) -> f64 {
    values.sort_unstable();
    let index = (values.len() * per_mille / 1_000).min(values.len().saturating_sub(1));
    values.get(index).copied().map_or(0.0, f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_and_the_lower_of_two() {
        for (values, expected) in [
            (&[][..], 0.0),
            (&[3.0], 3.0),
            (&[9.0, 1.0], 1.0),
            (&[5.0, 1.0, 9.0], 5.0),
            (&[4.0, 1.0, 3.0, 2.0], 2.0),
        ] {
            assert!((median(values) - expected).abs() < f64::EPSILON, "{values:?}");
        }
        assert_eq!(range(&[5.0, 1.0, 9.0]), (1.0, 9.0));
    }

    #[test]
    fn percentiles_lie_within_the_values() {
        let mut values: Vec<u32> = (1..=1_000).rev().collect();
        for (per_mille, expected) in [(500, 501.0), (990, 991.0), (1_000, 1_000.0)] {
            assert!((percentile(&mut values, per_mille) - expected).abs() < f64::EPSILON, "{per_mille}");
        }
        assert!(percentile(&mut [], 500).abs() < f64::EPSILON);
    }
}
