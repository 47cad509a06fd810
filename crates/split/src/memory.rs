//! How much memory a node takes: the one place that planner and executor both ask.

use privet_graph::{DType, Fact, FloatModel, GraphError, Node, ops};

use crate::kernels::{Convolution, Elementwise, Windows};

/// Bytes of a value in memory.
pub(crate) fn bytes(fact: &Fact) -> u64 {
    let element = match fact.dtype {
        DType::F32 => 4,
        DType::I64 => 8,
        DType::Bool => 1,
    };
    fact.shape.iter().fold(element, |product: u64, &d| product.saturating_mul(d as u64))
}

/// The facts of a node's operands and its first result.
pub(crate) struct Facts<'a> {
    pub(crate) operands: Vec<Option<&'a Fact>>,
    pub(crate) results: Vec<&'a Fact>,
}

impl<'a> Facts<'a> {
    pub(crate) fn of(model: &'a FloatModel, node: &Node) -> Result<Self, GraphError> {
        let operands = node.inputs.iter().map(|v| v.map(|v| model.fact(v)).transpose());
        let results = node.outputs.iter().filter_map(|v| model.fact(*v).ok()).collect();
        Ok(Self { operands: operands.collect::<Result<_, _>>()?, results })
    }

    fn operand(&self, i: usize) -> Option<&'a Fact> {
        self.operands.get(i).copied().flatten()
    }
}

/// Operands in whose place the result may be computed, when nothing reads them afterwards.
pub(crate) fn reusable(node: &Node, facts: &Facts<'_>) -> Vec<usize> {
    let Some(kind) = Elementwise::of(node) else { return Vec::new() };
    let (Some(result), [_]) = (facts.results.first(), node.outputs.as_slice()) else { return Vec::new() };
    let fits = |&i: &usize| {
        let Some(own) = facts.operand(i).filter(|own| own.value.is_none()) else { return false };
        kind == Elementwise::Reshape || own.dtype == DType::F32 && own.shape == result.shape
    };
    let constants = node.inputs.len() == 1
        || (1..node.inputs.len()).all(|i| facts.operand(i).is_none_or(|fact| fact.value.is_some()));
    match kind {
        Elementwise::Reshape => [0].into_iter().filter(fits).collect(),
        Elementwise::Map => [0].into_iter().filter(|i| constants && fits(i)).collect(),
        Elementwise::Combine => (0..2).filter(fits).collect(),
    }
}

/// The convolution's sizes, if there is a kernel for it.
pub(crate) fn convolution(node: &Node, facts: &Facts<'_>) -> Option<Convolution> {
    let conv = node.is::<ops::Conv>()?;
    let (x, w, y) = (&facts.operand(0)?.shape, &facts.operand(1)?.shape, &facts.results.first()?.shape);
    let (window, _) = conv.window.resolve(&w[2..], &x[2..]).ok()?;
    // A line is a picture of one row.
    let pair = |sizes: &[usize]| match *sizes {
        [x] => Some([1, x]),
        [y, x] => Some([y, x]),
        _ => None,
    };
    let numbers = |list: &[u32], front: usize| match *list {
        [x] => Some([front, x as usize]),
        [y, x] => Some([y as usize, x as usize]),
        _ => None,
    };
    Some(Convolution {
        batch: x[0],
        channels: x[1],
        filters: w[0],
        groups: conv.groups as usize,
        input: pair(&x[2..])?,
        output: pair(&y[2..])?,
        kernel: pair(&w[2..])?,
        stride: numbers(&window.stride, 1)?,
        dilation: numbers(&window.dilation, 1)?,
        padding: numbers(&window.pad_begin, 0)?,
    })
}

/// The sizes of maxima over windows of two axes.
pub(crate) fn max_pool(node: &Node, facts: &Facts<'_>) -> Option<Windows> {
    let pool = node.is::<ops::MaxPool>()?;
    let (x, y) = (&facts.operand(0)?.shape, &facts.results.first()?.shape);
    let (&[_, _, height, width], &[_, _, out_height, out_width]) = (x.as_slice(), y.as_slice()) else {
        return None;
    };
    let kernel: Option<Vec<usize>> =
        pool.window.kernel.as_ref()?.iter().map(|&k| usize::try_from(k).ok()).collect();
    let (window, _) = pool.window.resolve(&kernel?, &x[2..]).ok()?;
    let pair = |list: &[u32]| [list[0] as usize, list[1] as usize];
    Some(Windows {
        input: [height, width],
        output: [out_height, out_width],
        kernel: pair(&window.kernel),
        stride: pair(&window.stride),
        dilation: pair(&window.dilation),
        padding: pair(&window.pad_begin),
    })
}

/// Whether the node's operand 1 may be a weight of which only a block is there.
pub(crate) fn takes_blocks(node: &Node, facts: &Facts<'_>) -> bool {
    let matrix = facts.operand(1).is_some_and(|w| w.shape.len() == 2);
    let data = facts.operand(0).is_some_and(|x| !x.shape.is_empty());
    convolution(node, facts).is_some()
        || matrix && data && (node.is::<ops::Gemm>().is_some() || node.is::<ops::MatMul>().is_some())
}

/// Bytes that a node takes besides its operands and results.
pub(crate) fn workspace(node: &Node, facts: &Facts<'_>) -> u64 {
    let sum = |facts: &mut dyn Iterator<Item = &Fact>| facts.map(bytes).sum::<u64>();
    let result = sum(&mut facts.results.iter().copied());
    if Elementwise::of(node).is_some() || max_pool(node, facts).is_some() {
        return 0;
    }
    if let Some(sizes) = convolution(node, facts) {
        return sizes.workspace() as u64;
    }
    if takes_blocks(node, facts) {
        return 0;
    }
    let plain = node.is::<ops::Concat>().is_some()
        || node.is::<ops::GlobalAveragePool>().is_some()
        || node.is::<ops::GlobalMaxPool>().is_some()
        || node.is::<ops::AveragePool>().is_some()
        || node.is::<ops::Gather>().is_some();
    if plain {
        return 0;
    }
    // What is evaluated by the graph's own operators may copy its operands and its result once.
    let operands = sum(&mut facts.operands.iter().copied().flatten().filter(|f| f.value.is_none()));
    if node.is::<ops::MatMul>().is_some() || node.is::<ops::Einsum>().is_some() { operands } else { result }
}
