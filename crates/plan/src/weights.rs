//! The model owner's private integers and their file.

use std::collections::HashMap;

use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use zeroize::Zeroize;

use crate::{Digest, PLAN_VERSION, ParamId, Plan, PlanError};

/// Private fixed-point integers, one tensor per `Plan::params` entry. Deliberately neither `Debug` nor `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Weights {
    /// Row-major values, in the order of `Plan::params`.
    pub tensors: Vec<Vec<i64>>,
}

impl Weights {
    /// Wraps tensors in the order of `Plan::params`.
    pub fn new(tensors: Vec<Vec<i64>>) -> Self {
        Self { tensors }
    }

    /// Row-major values of a private tensor as elements of a ring, signed numbers modulo 2^64.
    pub fn elements(&self, param: ParamId) -> &[u64] {
        bytemuck::cast_slice(&self.tensors[param.index()])
    }

    /// Whether the number of tensors and their sizes fit the plan.
    pub fn check_sizes(&self, plan: &Plan) -> Result<(), PlanError> {
        if self.tensors.len() != plan.params.len() {
            let (expected, found) = (plan.params.len(), self.tensors.len());
            return Err(PlanError::Weights(format!("expected {expected} tensors, found {found}")));
        }
        for (spec, values) in plan.params.iter().zip(&self.tensors) {
            let expected: usize = spec.shape.iter().product();
            if values.len() != expected {
                let (name, found) = (&spec.name, values.len());
                return Err(PlanError::Weights(format!("{name}: expected {expected} values, found {found}")));
            }
        }
        Ok(())
    }

    /// Whether counts, sizes and magnitudes fit the plan.
    pub fn check(&self, plan: &Plan) -> Result<(), PlanError> {
        self.check_sizes(plan)?;
        let limit = i64::MAX >> (64 - plan.ring.bits());
        for (spec, values) in plan.params.iter().zip(&self.tensors) {
            if values.iter().any(|&v| v > limit || v < -limit - 1) {
                let (name, bits) = (&spec.name, plan.ring.bits());
                return Err(PlanError::Weights(format!("{name}: a value does not fit the {bits}-bit ring")));
            }
        }
        Ok(())
    }

    /// Digest over plan and values. Secret-derived: it confirms a guess of the weights, so it never leaves their owner.
    pub fn digest(&self, plan: &Digest) -> Digest {
        let mut bytes = plan.0.to_vec();
        for tensor in &self.tensors {
            bytes.extend((tensor.len() as u64).to_le_bytes());
            tensor.iter().for_each(|v| bytes.extend(v.to_le_bytes()));
        }
        Digest::of("privet weights", &bytes)
    }

    /// The bytes of a weights file: safetensors with 64-bit integers named `0`, `1`, .. and metadata that binds it
    /// to its plan.
    pub fn to_bytes(&self, plan: &Plan) -> Result<Vec<u8>, PlanError> {
        self.check(plan)?;
        let data: Vec<Vec<u8>> =
            self.tensors.iter().map(|t| t.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
        let views = plan.params.iter().zip(&data).enumerate().map(|(i, (spec, bytes))| {
            let view = TensorView::new(Dtype::I64, spec.shape.clone(), bytes).map_err(damaged)?;
            Ok((i.to_string(), view))
        });
        let views: Vec<_> = views.collect::<Result<_, PlanError>>()?;
        let metadata = HashMap::from([
            ("privet_version".to_owned(), PLAN_VERSION.to_string()),
            ("plan".to_owned(), plan.digest().to_string()),
        ]);
        serialize(views, Some(metadata)).map_err(damaged)
    }

    /// Parses a weights file and checks that it belongs to `plan`.
    pub fn from_bytes(bytes: &[u8], plan: &Plan) -> Result<Self, PlanError> {
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let expect = |key: &str, expected: String| match metadata.get(key) {
            Some(found) if *found == expected => Ok(()),
            found => {
                let found = found.map_or("nothing", String::as_str);
                Err(PlanError::Weights(format!("{key}: expected {expected}, found {found}")))
            }
        };
        expect("privet_version", PLAN_VERSION.to_string())?;
        expect("plan", plan.digest().to_string())?;
        let file = SafeTensors::deserialize(bytes).map_err(damaged)?;
        let tensors = plan.params.iter().enumerate().map(|(i, spec)| {
            let view = file.tensor(&i.to_string()).map_err(damaged)?;
            if view.dtype() != Dtype::I64 || view.shape() != spec.shape {
                let (dtype, shape) = (view.dtype(), view.shape());
                let problem =
                    format!("{}: expected i64 {:?}, found {dtype:?} {shape:?}", spec.name, spec.shape);
                return Err(PlanError::Weights(problem));
            }
            let (values, _) = view.data().as_chunks::<8>();
            Ok(values.iter().map(|b| i64::from_le_bytes(*b)).collect())
        });
        let weights = Self { tensors: tensors.collect::<Result<_, _>>()? };
        weights.check(plan)?;
        Ok(weights)
    }
}

impl Drop for Weights {
    fn drop(&mut self) {
        self.tensors.zeroize();
    }
}

fn damaged(error: safetensors::SafeTensorError) -> PlanError {
    PlanError::File { what: "weights file", problem: error.to_string() }
}
