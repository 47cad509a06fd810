//! `--input-range`: the values that an input may have.

use privet_plan::Plan;
use privet_plan::interval::Interval;
use privet_ring::fixed;

use super::{ModelError, names};

/// Ranges as given: a name, or none for all inputs; the smallest and the largest value.
#[derive(Debug, Clone, Default)]
pub(super) struct Declared(Vec<(Option<String>, f64, f64)>);

impl Declared {
    /// Parses `LO,HI` and `NAME=LO,HI`.
    pub(super) fn parse(given: &[String]) -> Result<Self, ModelError> {
        let mut ranges: Vec<(Option<String>, f64, f64)> = Vec::new();
        for text in given {
            let range = parse(text)?;
            if ranges.iter().any(|(name, ..)| *name == range.0) {
                let whose = range.0.map_or_else(|| "all inputs".to_owned(), |name| format!("input {name:?}"));
                return Err(ModelError::Options(format!(
                    "--input-range {text:?}: a range of {whose} is given already; leave one of them out"
                )));
            }
            ranges.push(range);
        }
        Ok(Self(ranges))
    }

    /// Whether nothing is declared.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// For every input its range as integers, rounded outwards; a name goes before the range of all inputs.
    pub(super) fn encode(&self, plan: &Plan) -> Result<Vec<Option<Interval>>, ModelError> {
        let unknown = |name: &&String| !plan.inputs.iter().any(|i| i.name == **name);
        if let Some(name) = self.0.iter().filter_map(|(name, ..)| name.as_ref()).find(unknown) {
            let inputs = names(&plan.inputs);
            return Err(ModelError::Options(format!(
                "--input-range: the model has no input {name:?}; its inputs are {inputs}"
            )));
        }
        let of = |name: &str| {
            let exact = self.0.iter().find(|(n, ..)| n.as_deref() == Some(name));
            exact.or_else(|| self.0.iter().find(|(n, ..)| n.is_none()))
        };
        let encode = |name: &str| -> Result<Option<Interval>, ModelError> {
            let Some((_, low, high)) = of(name) else { return Ok(None) };
            let bits = plan.ring.bits() - 1;
            let end = |value: f64| {
                fixed::encode(value, bits, plan.frac_bits.into()).map_err(|_| {
                    ModelError::Options(format!(
                        "--input-range: {value} does not fit {bits} bits with {} fractional bits",
                        plan.frac_bits
                    ))
                })
            };
            let unit = (-f64::from(plan.frac_bits)).exp2();
            Ok(Some(Interval {
                low: end((low / unit).floor() * unit)?,
                high: end((high / unit).ceil() * unit)?,
            }))
        };
        plan.inputs.iter().map(|i| encode(&i.name)).collect()
    }
}

fn parse(text: &str) -> Result<(Option<String>, f64, f64), ModelError> {
    let (name, range) = match text.rsplit_once('=') {
        Some((name, range)) => (Some(name.to_owned()), range),
        None => (None, text),
    };
    let ends: Option<Vec<f64>> = range.split(',').map(|v| v.trim().parse().ok()).collect();
    match ends.as_deref() {
        Some(&[low, high]) if low <= high && low.is_finite() && high.is_finite() => Ok((name, low, high)),
        _ => Err(ModelError::Options(format!(
            "--input-range {text:?}: expected the smallest and the largest value, for instance 0,1 or name=-2.5,2.5"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_parse_with_and_without_names() {
        assert_eq!(parse("-1, 2.5").unwrap(), (None, -1.0, 2.5));
        assert_eq!(parse("a=b=0,0").unwrap(), (Some("a=b".to_owned()), 0.0, 0.0));
        for bad in ["", "1", "2,1", "0,inf", "a=", "0,1,2", "nan,1"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_second_range_of_the_same_inputs_is_refused() {
        let declared =
            |given: &[&str]| Declared::parse(&given.iter().map(|&g| g.to_owned()).collect::<Vec<_>>());
        assert_eq!(declared(&["0,1", "a=0,1", "b=0,1"]).unwrap().0.len(), 3);
        for (twice, whose) in [(["0,1", "0,2"], "all inputs"), (["a=0,1", "a=0,1"], "input \"a\"")] {
            let error = declared(&twice).unwrap_err();
            assert!(matches!(&error, ModelError::Options(text) if text.contains(whose)), "{error}");
        }
    }
}
