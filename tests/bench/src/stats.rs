//! Medians and spreads.

use std::collections::BTreeMap;

/// Values of each row on each target, one per round.
#[derive(Debug, Default)]
pub struct Samples {
    values: BTreeMap<(String, String), Vec<f64>>,
}

impl Samples {
    pub fn add(&mut self, target: &str, row: &str, value: f64) {
        let key = (target.to_owned(), row.to_owned());
        self.values.entry(key).or_default().push(value);
    }

    pub fn get(&self, target: &str, row: &str) -> &[f64] {
        let key = (target.to_owned(), row.to_owned());
        self.values.get(&key).map_or(&[], Vec::as_slice)
    }
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// The value below which the share `at` of the samples lies, interpolated.
fn quantile(sorted: &[f64], at: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let place = at * last as f64;
    let below = sorted.get(place.floor() as usize)?;
    let above = sorted.get(place.ceil() as usize)?;
    Some(below + (above - below) * place.fract())
}

pub fn median(values: &[f64]) -> Option<f64> {
    quantile(&sorted(values), 0.5)
}

/// Distance of the quartiles as a share of the median.
pub fn spread(values: &[f64]) -> Option<f64> {
    let sorted = sorted(values);
    let middle = quantile(&sorted, 0.5)?;
    let distance = quantile(&sorted, 0.75)? - quantile(&sorted, 0.25)?;
    Some(if middle > 0.0 { distance / middle } else { 0.0 })
}

#[cfg(test)]
mod tests {
    use super::{median, spread};

    #[test]
    fn median_is_between_the_middle_two() {
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(&[5.0]), Some(5.0));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn spread_ignores_one_outlier() {
        assert_eq!(spread(&[10.0, 10.0, 10.0, 10.0, 90.0]), Some(0.0));
        assert_eq!(spread(&[8.0, 9.0, 10.0, 11.0, 12.0]), Some(0.2));
    }
}
