//! Einsum of one or two operands.

mod equation;

use ndarray::{ArrayD, ArrayView2, Axis};
use privet_plan::WireId;

use self::equation::{Equation, Label};
use super::product::{Factor, product};
use crate::tensor::{array, contiguous};
use crate::{Args, Fact, Lowering, OpError, Operator, Tensor, element_count};

/// Sums of products of elements, as `equation` says: diagonals and sums of every operand, then one matrix product.
#[derive(Debug, Clone)]
pub struct Einsum {
    /// Terms with one letter per axis, perhaps with an ellipsis, and perhaps `->` and the term of the result.
    pub equation: String,
}

impl Operator for Einsum {
    fn name(&self) -> &'static str {
        "Einsum"
    }

    fn facts(&self, inputs: Args<'_, Fact>) -> Result<Vec<Fact>, OpError> {
        let all = inputs.all()?;
        all.iter().try_for_each(|fact| fact.expect_float("operands"))?;
        let shapes: Vec<&[usize]> = all.iter().map(|f| f.shape.as_slice()).collect();
        let shape = Equation::new(&self.equation, &shapes)?.result();
        element_count("result", &shape)?;
        Ok(vec![Fact::float(shape)])
    }

    fn eval(&self, inputs: Args<'_, Tensor>) -> Result<Vec<Tensor>, OpError> {
        let all = inputs.all()?.into_iter().map(|t| t.floats("operands")).collect::<Result<Vec<_>, _>>()?;
        let shapes: Vec<&[usize]> = all.iter().map(|a| a.shape()).collect();
        let equation = Equation::new(&self.equation, &shapes)?;
        let y = evaluate(&mut Floats, &equation, all.into_iter().cloned().collect())?;
        Ok(vec![y.as_standard_layout().into_owned().into()])
    }

    fn work(&self, inputs: Args<'_, Fact>, results: &[Fact]) -> usize {
        let shapes: Vec<&[usize]> = inputs.0.iter().flatten().map(|f| f.shape.as_slice()).collect();
        let products = Equation::new(&self.equation, &shapes).map_or(0, |equation| equation.products());
        products.saturating_add(results[0].len())
    }

    fn lower(&self, ctx: &mut Lowering<'_>) -> Result<Vec<WireId>, OpError> {
        let factors = (0..ctx.operands().len())
            .map(|i| Factor::operand(ctx, i, "operand"))
            .collect::<Result<Vec<_>, _>>()?;
        let shapes: Vec<Vec<usize>> = factors.iter().map(|f| f.shape(ctx)).collect();
        let shapes: Vec<&[usize]> = shapes.iter().map(Vec::as_slice).collect();
        let equation = Equation::new(&self.equation, &shapes)?;
        match evaluate(&mut Steps(ctx), &equation, factors)? {
            Factor::Wire(wire) => Ok(vec![wire]),
            Factor::Constant(_) => unreachable!("constants were folded"),
        }
    }
}

/// What sums of products are made of, for numbers and for wires.
trait Algebra {
    type Value;
    fn shape(&self, x: &Self::Value) -> Vec<usize>;
    fn reshape(&mut self, x: Self::Value, shape: &[usize]) -> Self::Value;
    fn transpose(&mut self, x: Self::Value, perm: &[usize]) -> Self::Value;
    /// Some elements of an axis.
    fn gather(&mut self, x: Self::Value, axis: usize, positions: &[usize]) -> Result<Self::Value, OpError>;
    /// Sums over an axis, which stays with length 1.
    fn sum(&mut self, x: Self::Value, axis: usize) -> Result<Self::Value, OpError>;
    /// `[b, m, k] x [b, k, n]`.
    fn product(&mut self, a: Self::Value, b: Self::Value) -> Result<Self::Value, OpError>;
}

fn evaluate<A: Algebra>(
    algebra: &mut A,
    equation: &Equation,
    operands: Vec<A::Value>,
) -> Result<A::Value, OpError> {
    let mut reduced = Vec::with_capacity(2);
    for (i, x) in operands.into_iter().enumerate() {
        reduced.push(reduce(algebra, equation, i, x)?);
    }
    let result = equation.output.as_slice();
    let second = if reduced.len() > 1 { reduced.pop() } else { None };
    let Some((a, a_labels)) = reduced.pop() else {
        return Err(OpError::mismatch("operands", "one or two", 0));
    };
    let Some((b, b_labels)) = second else {
        return Ok(algebra.transpose(a, &places(result, &a_labels)));
    };
    let shared = |l: &&Label| b_labels.contains(l);
    let batch: Vec<Label> = a_labels.iter().filter(shared).filter(|l| result.contains(l)).copied().collect();
    let inner: Vec<Label> = a_labels.iter().filter(shared).filter(|l| !result.contains(l)).copied().collect();
    let left: Vec<Label> = a_labels.iter().filter(|l| !b_labels.contains(l)).copied().collect();
    let right: Vec<Label> = b_labels.iter().filter(|l| !a_labels.contains(l)).copied().collect();
    let (a_order, b_order) = ([&batch[..], &left, &inner].concat(), [&batch[..], &inner, &right].concat());
    let count = |labels: &[Label]| labels.iter().map(|l| equation.size(*l)).product::<usize>();
    let a = algebra.transpose(a, &places(&a_order, &a_labels));
    let b = algebra.transpose(b, &places(&b_order, &b_labels));
    let a = algebra.reshape(a, &[count(&batch), count(&left), count(&inner)]);
    let b = algebra.reshape(b, &[count(&batch), count(&inner), count(&right)]);
    let y = algebra.product(a, b)?;
    let labels = [batch, left, right].concat();
    let y = algebra.reshape(y, &labels.iter().map(|l| equation.size(*l)).collect::<Vec<_>>());
    Ok(algebra.transpose(y, &places(result, &labels)))
}

/// Takes diagonals of labels that stand twice, drops axes that the other operand stretches, and sums what only this
/// operand has and the result does not.
fn reduce<A: Algebra>(
    algebra: &mut A,
    equation: &Equation,
    operand: usize,
    mut x: A::Value,
) -> Result<(A::Value, Vec<Label>), OpError> {
    let mut labels = equation.inputs[operand].clone();
    while let Some((first, second)) = repeated(&labels) {
        // The two axes become the last one, of which every (size + 1)-th element lies on the diagonal.
        let mut perm: Vec<usize> = (0..labels.len()).filter(|&a| a != first && a != second).collect();
        let label = labels[first];
        labels = perm.iter().map(|&a| labels[a]).collect();
        perm.extend([first, second]);
        x = algebra.transpose(x, &perm);
        let mut shape = algebra.shape(&x);
        let size = shape.pop().unwrap_or(1);
        if let Some(last) = shape.last_mut() {
            *last *= size;
        }
        x = algebra.reshape(x, &shape);
        let diagonal: Vec<usize> = (0..size).map(|i| i * (size + 1)).collect();
        x = algebra.gather(x, labels.len(), &diagonal)?;
        labels.push(label);
    }
    let others: Vec<Label> = (0..equation.inputs.len())
        .filter(|&i| i != operand)
        .flat_map(|i| equation.inputs[i].iter().copied())
        .collect();
    for axis in (0..labels.len()).rev() {
        let label = labels[axis];
        let stretched = others.contains(&label) && algebra.shape(&x)[axis] != equation.size(label);
        let summed = !others.contains(&label) && !equation.output.contains(&label);
        if stretched || summed {
            if summed {
                x = algebra.sum(x, axis)?;
            }
            let mut shape = algebra.shape(&x);
            shape.remove(axis);
            labels.remove(axis);
            x = algebra.reshape(x, &shape);
        }
    }
    Ok((x, labels))
}

fn repeated(labels: &[Label]) -> Option<(usize, usize)> {
    let second = (0..labels.len()).find(|&i| labels[..i].contains(&labels[i]))?;
    Some((labels.iter().position(|l| *l == labels[second])?, second))
}

/// Where each of `wanted` stands in `found`, which holds the same labels.
fn places(wanted: &[Label], found: &[Label]) -> Vec<usize> {
    wanted.iter().filter_map(|w| found.iter().position(|f| f == w)).collect()
}

struct Floats;

impl Algebra for Floats {
    type Value = ArrayD<f32>;

    fn shape(&self, x: &ArrayD<f32>) -> Vec<usize> {
        x.shape().to_vec()
    }

    fn reshape(&mut self, x: ArrayD<f32>, shape: &[usize]) -> ArrayD<f32> {
        array(shape, contiguous(&x).into_owned())
    }

    fn transpose(&mut self, x: ArrayD<f32>, perm: &[usize]) -> ArrayD<f32> {
        x.permuted_axes(perm)
    }

    fn gather(&mut self, x: ArrayD<f32>, axis: usize, positions: &[usize]) -> Result<ArrayD<f32>, OpError> {
        Ok(x.select(Axis(axis), positions))
    }

    fn sum(&mut self, x: ArrayD<f32>, axis: usize) -> Result<ArrayD<f32>, OpError> {
        Ok(x.sum_axis(Axis(axis)).insert_axis(Axis(axis)))
    }

    fn product(&mut self, a: ArrayD<f32>, b: ArrayD<f32>) -> Result<ArrayD<f32>, OpError> {
        let (&[batch, m, k], &[_, _, n]) = (a.shape(), b.shape()) else {
            return Err(OpError::mismatch("operands", "batches of matrices", format!("{:?}", a.shape())));
        };
        element_count("product", &[batch, m, n])?;
        let (a, b) = (contiguous(&a), contiguous(&b));
        let mut y = Vec::with_capacity(batch * m * n);
        for i in 0..batch {
            let left = ArrayView2::from_shape((m, k), &a[i * m * k..(i + 1) * m * k]);
            let right = ArrayView2::from_shape((k, n), &b[i * k * n..(i + 1) * k * n]);
            let product =
                left.expect("the slice is one matrix").dot(&right.expect("the slice is one matrix"));
            y.extend(product.iter());
        }
        Ok(array(&[batch, m, n], y))
    }
}

/// Numbers while only constants are concerned, else plan steps.
struct Steps<'a, 'b>(&'a mut Lowering<'b>);

impl Algebra for Steps<'_, '_> {
    type Value = Factor;

    fn shape(&self, x: &Factor) -> Vec<usize> {
        x.shape(self.0)
    }

    fn reshape(&mut self, x: Factor, shape: &[usize]) -> Factor {
        x.reshape(self.0, shape)
    }

    fn transpose(&mut self, x: Factor, perm: &[usize]) -> Factor {
        x.transpose(self.0, perm)
    }

    fn gather(&mut self, x: Factor, axis: usize, positions: &[usize]) -> Result<Factor, OpError> {
        Ok(match x {
            Factor::Wire(wire) => Factor::Wire(self.0.gather(wire, axis, positions)?),
            Factor::Constant(values) => Factor::Constant(Floats.gather(values, axis, positions)?),
        })
    }

    fn sum(&mut self, x: Factor, axis: usize) -> Result<Factor, OpError> {
        Ok(match x {
            Factor::Wire(wire) => Factor::Wire(self.0.sum_axis(wire, axis)?),
            Factor::Constant(values) => Factor::Constant(Floats.sum(values, axis)?),
        })
    }

    fn product(&mut self, a: Factor, b: Factor) -> Result<Factor, OpError> {
        product(self.0, a, b).map(Factor::Wire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(equation: &str, operands: &[(&[usize], &[f32])]) -> ArrayD<f32> {
        let tensors: Vec<Tensor> =
            operands.iter().map(|(shape, values)| array(shape, values.to_vec()).into()).collect();
        let args: Vec<Option<&Tensor>> = tensors.iter().map(Some).collect();
        let op = Einsum { equation: equation.to_owned() };
        op.eval(Args(&args)).unwrap().remove(0).floats("y").unwrap().clone()
    }

    #[test]
    fn diagonals_sums_and_products() {
        let x: (&[usize], &[f32]) = (&[2, 2], &[1.0, 2.0, 3.0, 4.0]);
        assert_eq!(run("ii", &[x]), array(&[], vec![5.0]));
        assert_eq!(run("ii->i", &[x]), array(&[2], vec![1.0, 4.0]));
        assert_eq!(run("ba", &[x]), array(&[2, 2], vec![1.0, 3.0, 2.0, 4.0]));
        assert_eq!(run("ij,ij->j", &[x, x]), array(&[2], vec![10.0, 20.0]));
        assert_eq!(
            run("i,j->ji", &[(&[2], &[1.0, 2.0]), (&[2], &[3.0, 5.0])]),
            array(&[2, 2], vec![3.0, 6.0, 5.0, 10.0])
        );
        // An axis of length 1 stretches.
        assert_eq!(run("...i,...i->...", &[x, (&[1, 2], &[1.0, 10.0])]), array(&[2], vec![21.0, 43.0]));
    }
}
