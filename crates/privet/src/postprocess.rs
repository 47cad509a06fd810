//! From revealed integers to what a person wants to see: floats, probabilities, labels.

use ndarray::{ArrayD, Axis, IxDyn};
use privet_plan::{OutputSpec, Plan, Post};
use privet_ring::fixed;
use serde::{Deserialize, Serialize};

use crate::output::Values;

/// One output of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// Name in the model.
    pub name: String,
    /// What the model gives: the revealed values after the final float function, if the model ends in one.
    /// Whole numbers are positions, counts or truth values, never logits.
    pub values: Values,
    /// That final function.
    pub post: Post,
}

impl Output {
    /// As [`top`]; empty for whole numbers.
    pub fn top(&self, labels: &[String], k: usize) -> Vec<Top> {
        match &self.values {
            Values::Floats(values) => top(values, labels, k, self.post),
            Values::Whole(_) => Vec::new(),
        }
    }
}

/// One class of a classifier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Top {
    /// Position in the output.
    pub index: usize,
    /// Its label, if there are labels.
    pub label: Option<String>,
    /// See [`top`].
    pub probability: f64,
}

/// Decodes revealed integers, one vector per plan output, and applies the final float functions.
///
/// # Errors
/// The message says what was expected and found when counts do not match the plan.
pub fn decode(plan: &Plan, revealed: &[Vec<i64>]) -> Result<Vec<Output>, String> {
    if revealed.len() != plan.outputs.len() {
        return Err(format!("expected {} outputs, found {}", plan.outputs.len(), revealed.len()));
    }
    plan.outputs.iter().zip(revealed).map(|(spec, integers)| decode_one(plan, spec, integers)).collect()
}

fn decode_one(plan: &Plan, spec: &OutputSpec, integers: &[i64]) -> Result<Output, String> {
    let shape = plan.shape(spec.wire);
    let frac_bits = u32::from(plan.steps[spec.wire.index()].frac_bits);
    let integers = ArrayD::from_shape_vec(IxDyn(shape), integers.to_vec())
        .map_err(|_| format!("output {}: shape {shape:?}, found {} values", spec.name, integers.len()))?;
    // Whole numbers stay integers: beyond 2^53 floats would round them.
    let values = if frac_bits == 0 && spec.post == Post::None {
        Values::Whole(integers)
    } else {
        Values::Floats(apply(integers.mapv(|v| fixed::decode(v, frac_bits)), spec.post))
    };
    Ok(Output { name: spec.name.clone(), values, post: spec.post })
}

/// Name of a final function, for people.
pub fn name(post: Post) -> &'static str {
    match post {
        Post::None => "none",
        Post::Softmax { .. } => "softmax",
        Post::LogSoftmax { .. } => "log-softmax",
        Post::Sigmoid => "sigmoid",
    }
}

/// One line for people: the most probable class with its probability, a whole number, or each output's shape.
pub fn summary(plan: &Plan, revealed: &[Vec<i64>]) -> String {
    let outputs = match decode(plan, revealed) {
        Ok(outputs) => outputs,
        Err(problem) => return problem,
    };
    let one = |output: &Output| match &output.top(&plan.labels, 1)[..] {
        [best] => {
            let label = best.label.clone().unwrap_or_else(|| format!("class {}", best.index));
            format!("{}: {label} ({:.1} %)", output.name, 100.0 * best.probability)
        }
        _ => match &output.values {
            Values::Whole(values) if values.len() == 1 => format!("{}: {}", output.name, values.sum()),
            values => format!("{}: shape {:?}", output.name, values.shape()),
        },
    };
    outputs.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// Applies a final float function.
fn apply(mut values: ArrayD<f64>, post: Post) -> ArrayD<f64> {
    let along = |values: &mut ArrayD<f64>, axis: u32, function: fn(&mut [f64])| {
        for mut lane in values.lanes_mut(Axis(axis as usize)) {
            let mut copy = lane.to_vec();
            function(&mut copy);
            lane.iter_mut().zip(copy).for_each(|(to, from)| *to = from);
        }
    };
    match post {
        Post::None => {}
        Post::Softmax { axis } => along(&mut values, axis, softmax),
        Post::LogSoftmax { axis } => along(&mut values, axis, log_softmax),
        Post::Sigmoid => values.mapv_inplace(|x| 1.0 / (1.0 + (-x).exp())),
    }
    values
}

/// The `k` most probable classes, most probable first.
///
/// `values` are a model's output after `post`. Probabilities are the values themselves after softmax and sigmoid, their
/// exponentials after log-softmax, and the softmax of the values when the model ends in logits.
///
/// Empty unless the output is one sample's vector of at least two classes: all axes but one have length 1. When there
/// is one more class than labels, class 0 is `background` and labels shift by one.
pub fn top(values: &ArrayD<f64>, labels: &[String], k: usize, post: Post) -> Vec<Top> {
    if values.len() < 2 || values.shape().iter().filter(|&&d| d != 1).count() != 1 {
        return Vec::new();
    }
    let mut probabilities: Vec<f64> = values.iter().copied().collect();
    match post {
        Post::None => softmax(&mut probabilities),
        Post::LogSoftmax { .. } => probabilities.iter_mut().for_each(|p| *p = p.exp()),
        Post::Softmax { .. } | Post::Sigmoid => {}
    }
    let mut order: Vec<usize> = (0..probabilities.len()).collect();
    // By value, because probabilities of far-apart logits round to equal numbers; ties keep the model's order.
    let key: Vec<f64> = values.iter().copied().collect();
    order.sort_by(|&a, &b| key[b].total_cmp(&key[a]));
    let has_background = !labels.is_empty() && probabilities.len() == labels.len() + 1;
    let label = |index: usize| match (has_background, index) {
        (true, 0) => Some("background".to_owned()),
        (true, _) => labels.get(index - 1).cloned(),
        (false, _) => labels.get(index).cloned(),
    };
    let entry = |&index: &usize| Top { index, label: label(index), probability: probabilities[index] };
    order.iter().take(k).map(entry).collect()
}

fn softmax(values: &mut [f64]) {
    let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    values.iter_mut().for_each(|v| *v = (*v - largest).exp());
    let sum: f64 = values.iter().sum();
    values.iter_mut().for_each(|v| *v /= sum);
}

fn log_softmax(values: &mut [f64]) {
    let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log_sum = values.iter().map(|v| (v - largest).exp()).sum::<f64>().ln() + largest;
    values.iter_mut().for_each(|v| *v -= log_sum);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(shape: &[usize], values: &[f64]) -> ArrayD<f64> {
        ArrayD::from_shape_vec(IxDyn(shape), values.to_vec()).unwrap()
    }

    fn close(found: &ArrayD<f64>, expected: &[f64]) {
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{found} {expected:?}");
    }

    #[test]
    fn final_functions_work_along_their_axis() {
        let x = array(&[2, 2], &[0.0, 3f64.ln(), 1000.0, 1000.0]);
        close(&apply(x.clone(), Post::Softmax { axis: 1 }), &[0.25, 0.75, 0.5, 0.5]);
        close(&apply(x.clone(), Post::LogSoftmax { axis: 1 }), &[0.25, 0.75, 0.5, 0.5].map(f64::ln));
        close(&apply(x.clone(), Post::Softmax { axis: 0 }), &[0.0, 0.0, 1.0, 1.0]);
        close(&apply(x.clone(), Post::Sigmoid), &[0.5, 0.75, 1.0, 1.0]);
        assert_eq!(apply(x.clone(), Post::None), x);
    }

    #[test]
    fn top_sorts_and_labels() {
        let labels = ["a", "b", "c"].map(str::to_owned);
        let logits = array(&[1, 3, 1, 1], &[0.0, 800.0, 801.0]);
        let best = top(&logits, &labels, 2, Post::None);
        assert_eq!(best.iter().map(|t| t.index).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(best[0].label.as_deref(), Some("c"));
        assert!((best[0].probability - 1.0 / (1.0 + (-1f64).exp())).abs() < 1e-12);
        let log = top(&array(&[2], &[0.25f64.ln(), 0.75f64.ln()]), &[], 5, Post::LogSoftmax { axis: 0 });
        assert_eq!((log[0].index, log[0].label.clone(), log.len()), (1, None, 2));
        assert!((log[0].probability - 0.75).abs() < 1e-12);
    }

    #[test]
    fn one_class_more_than_labels_is_background() {
        let labels = ["cat", "dog"].map(str::to_owned);
        let best = top(&array(&[1, 3], &[0.5, 0.2, 0.3]), &labels, 3, Post::Softmax { axis: 1 });
        let names: Vec<_> = best.iter().map(|t| t.label.clone().unwrap()).collect();
        assert_eq!(names, ["background", "dog", "cat"]);
        assert_eq!(best[0].probability, 0.5);
    }

    #[test]
    fn tensors_that_are_no_classification_have_no_top() {
        assert!(top(&array(&[2, 2], &[0.0; 4]), &[], 5, Post::None).is_empty());
        assert!(top(&array(&[1, 1], &[0.0]), &[], 5, Post::None).is_empty());
    }

    #[test]
    fn whole_numbers_are_no_logits() {
        use privet_plan::{InputSpec, Op, Preprocess, Range, RangeSource, Step, WireId};
        let step = |op, inputs: &[WireId], frac_bits| Step {
            name: "step".to_owned(),
            op,
            inputs: inputs.to_vec(),
            shape: vec![1, 3],
            frac_bits,
            range: Range { bits: 31, source: RangeSource::FullWidth },
        };
        let spec = |wire, post| OutputSpec { name: format!("{post:?}{wire}"), wire: WireId(wire), post };
        let plan = Plan {
            model: "test".to_owned(),
            ring: privet_ring::Ring::new(32).unwrap(),
            frac_bits: 8,
            inputs: vec![InputSpec {
                name: "x".to_owned(),
                shape: vec![1, 3],
                preprocess: Preprocess::default(),
            }],
            params: Vec::new(),
            steps: vec![
                step(Op::Input { input: 0 }, &[], 8),
                step(Op::NonNegative { width: 31 }, &[WireId(0)], 0),
            ],
            outputs: vec![spec(0, Post::None), spec(1, Post::None), spec(1, Post::Softmax { axis: 1 })],
            labels: Vec::new(),
            fss: Vec::new(),
        };
        plan.validate().unwrap();
        // Floats would make 2^53 of it.
        let large = (1i64 << 53) + 1;
        let revealed = [vec![256, 512, -128], vec![1, large, -large], vec![1, 0, 1]];
        let outputs = decode(&plan, &revealed).unwrap();
        assert_eq!(outputs[0].top(&[], 1)[0].index, 1);
        assert!(outputs[1].top(&[], 1).is_empty());
        assert_eq!(outputs[2].top(&[], 5).len(), 3);
        let Values::Whole(array) = &outputs[1].values else { panic!("whole numbers") };
        assert_eq!(array.iter().copied().collect::<Vec<_>>(), [1, large, -large]);
        assert!([0, 2].iter().all(|&i| matches!(&outputs[i].values, Values::Floats(_))));
        assert!(summary(&plan, &revealed).contains("None1: shape [1, 3]"));
    }
}
