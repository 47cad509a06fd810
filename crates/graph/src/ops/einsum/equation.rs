//! The equation of an Einsum: labels of all axes, and their sizes.

use std::collections::BTreeMap;

use crate::{MAX_RANK, OpError};

/// An axis: of the ellipsis, by its number, or a letter. The order is that of an implicit result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Label {
    /// An axis that the ellipsis stands for.
    Ellipsis(usize),
    /// A letter.
    Letter(char),
}

/// An equation that fits its operands.
#[derive(Debug, PartialEq)]
pub(super) struct Equation {
    pub(super) inputs: Vec<Vec<Label>>,
    /// Distinct labels of the inputs.
    pub(super) output: Vec<Label>,
    sizes: BTreeMap<Label, usize>,
}

impl Equation {
    pub(super) fn new(text: &str, shapes: &[&[usize]]) -> Result<Self, OpError> {
        let text: String = text.chars().filter(|c| *c != ' ').collect();
        let wrong =
            |expected: &str| OpError::mismatch("equation", expected, format!("{text:?} on {shapes:?}"));
        let (left, right) = match text.split_once("->") {
            Some((left, right)) => (left, Some(right)),
            None => (text.as_str(), None),
        };
        let terms: Vec<Term> =
            left.split(',').map(Term::parse).collect::<Option<_>>().ok_or_else(|| wrong(SYNTAX))?;
        if terms.len() != shapes.len() {
            return Err(wrong("one term per operand"));
        }
        if terms.len() > 2 {
            return Err(OpError::unsupported(
                format!("an equation of {} operands ({text:?})", terms.len()),
                "one or two operands",
            ));
        }
        let mut stretched = Vec::with_capacity(2);
        for (term, shape) in terms.iter().zip(shapes) {
            let letters = term.before.len() + term.after.len();
            let rest =
                shape.len().checked_sub(letters).filter(|&r| (term.ellipsis || r == 0) && r <= MAX_RANK);
            stretched.push(rest.ok_or_else(|| wrong("as many letters as axes"))?);
        }
        let longest = stretched.iter().copied().max().unwrap_or(0);
        let inputs: Vec<Vec<Label>> =
            terms.iter().zip(&stretched).map(|(term, &rest)| term.labels(longest - rest..longest)).collect();
        let mut sizes = BTreeMap::new();
        for (labels, shape) in inputs.iter().zip(shapes) {
            for (i, (&label, &size)) in labels.iter().zip(*shape).enumerate() {
                let twice = labels[..i].iter().position(|l| *l == label);
                if twice.is_some_and(|first| shape[first] != size) {
                    return Err(wrong("equal axes on a diagonal"));
                }
                match sizes.insert(label, size) {
                    Some(before) if before == 1 || before == size => {}
                    Some(before) if size == 1 => {
                        sizes.insert(label, before);
                    }
                    Some(_) => return Err(wrong("axes of equal length, or 1, under one letter")),
                    None => {}
                }
            }
        }
        let output = match right {
            Some(term) => {
                let term = Term::parse(term).ok_or_else(|| wrong(SYNTAX))?;
                if longest > 0 && !term.ellipsis {
                    return Err(wrong("an ellipsis in the result if there is one in an operand"));
                }
                term.labels(0..longest)
            }
            None => {
                let once = |label: &Label| match label {
                    Label::Ellipsis(_) => true,
                    letter => inputs.iter().flatten().filter(|l| *l == letter).count() == 1,
                };
                sizes.keys().copied().filter(once).collect()
            }
        };
        let distinct = output.iter().enumerate().all(|(i, label)| !output[..i].contains(label));
        if !distinct || output.iter().any(|label| !sizes.contains_key(label)) {
            return Err(wrong("a result of distinct letters of the operands"));
        }
        Ok(Self { inputs, output, sizes })
    }

    /// Length of all axes of this label, but for those of length 1 that stretch.
    pub(super) fn size(&self, label: Label) -> usize {
        self.sizes.get(&label).copied().unwrap_or(1)
    }

    /// How many products are summed: one for every choice of a place along every label.
    pub(super) fn products(&self) -> usize {
        let mut labels: Vec<Label> = Vec::new();
        for &label in self.inputs.iter().flatten() {
            if !labels.contains(&label) {
                labels.push(label);
            }
        }
        labels.iter().fold(1, |product, &label| self.size(label).saturating_mul(product))
    }

    /// Shape of the result.
    pub(super) fn result(&self) -> Vec<usize> {
        self.output.iter().map(|&label| self.size(label)).collect()
    }
}

const SYNTAX: &str = "letters, commas, one ellipsis per term";

/// The labels of one operand.
struct Term {
    before: Vec<char>,
    ellipsis: bool,
    after: Vec<char>,
}

impl Term {
    fn parse(text: &str) -> Option<Self> {
        let (before, after) = text.split_once("...").unwrap_or((text, ""));
        let letters = |part: &str| -> Option<Vec<char>> {
            part.chars().map(|c| c.is_ascii_alphabetic().then_some(c)).collect()
        };
        Some(Self { before: letters(before)?, ellipsis: text.contains("..."), after: letters(after)? })
    }

    fn labels(&self, ellipsis: std::ops::Range<usize>) -> Vec<Label> {
        let mut labels: Vec<Label> = self.before.iter().copied().map(Label::Letter).collect();
        if self.ellipsis {
            labels.extend(ellipsis.map(Label::Ellipsis));
        }
        labels.extend(self.after.iter().copied().map(Label::Letter));
        labels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn implicit_results_are_sorted_behind_the_ellipsis() {
        let equation = Equation::new("b...a, ...cB", &[&[2, 7, 3], &[7, 4, 5]]).unwrap();
        assert_eq!(equation.result(), [7, 5, 3, 2, 4]);
        assert_eq!(Equation::new("ij,jk", &[&[2, 3], &[3, 4]]).unwrap().result(), [2, 4]);
    }

    #[test]
    fn contradictions_are_refused() {
        for (text, shapes) in [
            ("ij->i", &[&[2][..]][..]),
            ("ij", &[&[2, 3], &[2, 3]]),
            ("ij,jk->ik", &[&[2, 3], &[4, 2]]),
            ("ij->ii", &[&[2, 3]]),
            ("ij->k", &[&[2, 3]]),
            ("ii->i", &[&[2, 3]]),
            ("...i->i", &[&[2, 3]]),
            ("i.j", &[&[2, 3]]),
            ("......i", &[&[2, 3]]),
            ("i->j->k", &[&[2]]),
            ("i,i,i->i", &[&[2], &[2], &[2]]),
            ("i,é", &[&[2], &[2]]),
        ] {
            assert!(Equation::new(text, shapes).is_err(), "{text}");
        }
    }
}
