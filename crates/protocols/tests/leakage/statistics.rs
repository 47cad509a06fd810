//! Tests of uniformity with false-alarm rates.
//!
//! How far counts are from what is expected is their relative entropy D (Kullback and Leibler) in nats, times the number n of samples. A
//! chi-square will not do: so far out, where a small rate is shared by thousands of statistics, few samples a cell exceed what
//! tables say more often. With five in each of 16 cells it is above 100 with a probability between 2^-36 and 2^-29, where the table has
//! 2^-46. With k cells, E e^(t nD) is (1 - t)^-((k - 1) / 2) for very many samples (Wilks) and at most the square of that for any number (Agrawal,
//! Finite-sample concentration of the multinomial in relative entropy, 2020). For five or more in a cell it is below
//! (1 - t)^-(0.55 (k - 1)): a test computes it. So is nD above y with a probability below e^-y (e y / f)^f, f = 0.55 (k - 1); f adds up for
//! sums of independent statistics.

/// Statistics that share one false-alarm rate (Bonferroni: each of n has an n-th of it).
pub(crate) struct Family {
    /// How often a correct build may fail at most, if all that is tested is uniform.
    rate: f64,
    members: Vec<Member>,
}

struct Member {
    name: String,
    /// n D.
    statistic: f64,
    /// k - 1; twice that for two lots of counts.
    freedom: usize,
}

/// n D of counts whose cells are expected to be as large as this.
fn divergence(counts: &[u64], expected: impl Fn(usize) -> f64) -> f64 {
    let term = |(i, &c): (usize, &u64)| if c == 0 { 0.0 } else { c as f64 * (c as f64 / expected(i)).ln() };
    counts.iter().enumerate().map(term).sum()
}

impl Family {
    pub(crate) fn new(rate: f64) -> Self {
        Self { rate, members: Vec::new() }
    }

    /// Whether counts are those of a uniform distribution.
    pub(crate) fn uniform(&mut self, name: impl FnOnce() -> String, counts: &[u64]) {
        let expected = counts.iter().sum::<u64>() as f64 / counts.len() as f64;
        assert!(expected >= 5.0, "{}: too few samples to say much", name());
        self.add(name, divergence(counts, |_| expected), counts.len() - 1);
    }

    /// Whether two lots of counts come from one distribution. Its statistic is the least of the sums of both lots' n D from one and the
    /// same distribution, so it is below that sum for the true one.
    pub(crate) fn equal(&mut self, name: impl FnOnce() -> String, a: &[u64], b: &[u64]) {
        let [of_a, of_b] = [a, b].map(|counts| counts.iter().sum::<u64>() as f64);
        let expected = |i: usize, of: f64| (a[i] + b[i]) as f64 * of / (of_a + of_b);
        let statistic = divergence(a, |i| expected(i, of_a)) + divergence(b, |i| expected(i, of_b));
        self.add(name, statistic, 2 * (a.len() - 1));
    }

    /// Whether the bytes of one frame are uniform. At least five samples a cell; less than 40 bytes tell nothing by themselves.
    pub(crate) fn frame(&mut self, name: impl FnOnce() -> String, bytes: &[u8]) {
        if bytes.len() >= 5 * 256 {
            let mut counts = [0; 256];
            bytes.iter().for_each(|&b| counts[usize::from(b)] += 1);
            self.uniform(name, &counts);
        } else if bytes.len() >= 40 {
            let mut counts = [0; 16];
            bytes.iter().flat_map(|&b| [b & 15, b >> 4]).for_each(|b| counts[usize::from(b)] += 1);
            self.uniform(name, &counts);
        }
    }

    fn add(&mut self, name: impl FnOnce() -> String, statistic: f64, freedom: usize) {
        // Names are only needed for what might fail: every bound is above this.
        let name = if statistic > freedom as f64 { name() } else { String::new() };
        self.members.push(Member { name, statistic, freedom });
    }

    /// Panics if any member fails.
    #[track_caller]
    pub(crate) fn check(&self) {
        let each = self.rate / self.members.len() as f64;
        let mut bounds = std::collections::BTreeMap::new();
        for member in &self.members {
            let bound = *bounds.entry(member.freedom).or_insert_with(|| bound(member.freedom, each));
            assert!(
                member.statistic < bound,
                "{}: {:.0} nats from what is expected with {} degrees of freedom; at most {bound:.0} of {} are",
                member.name,
                member.statistic,
                member.freedom,
                self.members.len(),
            );
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }
}

/// What the power of moments is for each degree of freedom.
const POWER: f64 = 0.55;

/// What n D exceeds with a probability below this.
fn bound(freedom: usize, probability: f64) -> f64 {
    let freedom = POWER * freedom as f64;
    let exponent = |y: f64| y - freedom * (1.0 + (y / freedom).ln());
    let (mut low, mut high) = (freedom, 100.0 * freedom + 1000.0);
    while high - low > 1e-3 {
        let middle = f64::midpoint(low, high);
        if exponent(middle) < -probability.ln() { low = middle } else { high = middle }
    }
    high
}

/// Bits of samples as for [`constant_sum`]: finds two positions, the first of `some`, whose sum modulo 2 is 1 too often or too seldom; of
/// all, the two for which it is furthest from half of the samples.
///
/// Bits that are uniform and independent two by two have such a pair with a probability below `rate`: by Hoeffding's inequality
/// a sum is 1 in t samples of n more or less than half with one of at most 2·exp(−2t²/n).
pub(crate) fn biased_pair(
    rows: &[Vec<u64>],
    some: &[usize],
    samples: usize,
    rate: f64,
) -> Option<(usize, usize)> {
    let (pairs, samples) = ((some.len() * rows.len()) as f64, samples as f64);
    let mut furthest = (samples / 2.0 * (2.0 * pairs / rate).ln()).sqrt();
    let mut found = None;
    for (j, b) in rows.iter().enumerate() {
        for &i in some.iter().filter(|&&i| i != j) {
            let ones: u32 = rows[i].iter().zip(b).map(|(a, b)| (a ^ b).count_ones()).sum();
            let distance = (f64::from(ones) - samples / 2.0).abs();
            if distance > furthest {
                (furthest, found) = (distance, Some((i, j)));
            }
        }
    }
    found
}

/// Bits of samples, one row of words for every bit position; finds positions whose sum modulo 2 is the same in all samples.
///
/// For `positions` independent uniform bits, that some sum of them is constant over `samples` samples has a probability below
/// 2^(positions + 1 - samples).
pub(crate) fn constant_sum(rows: &[Vec<u64>], samples: usize) -> Option<Vec<usize>> {
    // Which rows a sum is made of is only asked where there is one.
    dependent(rows, samples, false).and_then(|_| dependent(rows, samples, true))
}

/// Rows that are reduced at a time, so that they stay in the cache while the basis passes by.
const BLOCK: usize = 64;

/// [`constant_sum`]; the rows that it is made of only if they are `traced`.
fn dependent(rows: &[Vec<u64>], samples: usize, traced: bool) -> Option<Vec<usize>> {
    let words = samples.div_ceil(64);
    let sources = if traced { (rows.len() + 1).div_ceil(64) } else { 0 };
    // The constant 1 is the first row; each basis row remembers which rows it is the sum of.
    let ones: Vec<u64> = (0..words).map(|w| u64::MAX >> (64 - (samples - 64 * w).min(64))).collect();
    let mut left: Vec<Vec<u64>> = std::iter::once(&ones).chain(rows).cloned().collect();
    for (i, row) in left.iter_mut().enumerate() {
        row.resize(words + sources, 0);
        if traced {
            row[words + i / 64] |= 1 << (i % 64);
        }
    }
    let reduce = |row: &mut [u64], (pivot, basis): &(usize, Vec<u64>)| {
        if row[pivot / 64] >> (pivot % 64) & 1 == 1 {
            // Before its pivot, a basis row is zero.
            row[pivot / 64..].iter_mut().zip(&basis[pivot / 64..]).for_each(|(a, b)| *a ^= b);
        }
    };
    let mut basis: Vec<(usize, Vec<u64>)> = Vec::with_capacity(left.len());
    for block in left.chunks_mut(BLOCK) {
        let known = basis.len();
        for other in &basis {
            block.iter_mut().for_each(|row| reduce(row, other));
        }
        for row in block {
            basis[known..].iter().for_each(|other| reduce(row, other));
            let Some(word) = row[..words].iter().position(|&w| w != 0) else {
                let used = |i: &usize| traced && row[words + i / 64] >> (i % 64) & 1 == 1;
                return Some((1..=rows.len()).filter(used).map(|i| i - 1).collect());
            };
            basis.push((64 * word + row[word].trailing_zeros() as usize, std::mem::take(row)));
        }
    }
    None
}

/// ln n!
#[cfg(test)]
fn ln_factorial(n: u64) -> f64 {
    (2..=n).map(|i| (i as f64).ln()).sum()
}

/// All counts of so many samples in so many cells, with their probabilities.
#[cfg(test)]
fn all_counts(samples: u64, cells: usize) -> Vec<(Vec<u64>, f64)> {
    let mut all = vec![(Vec::new(), samples, ln_factorial(samples) - samples as f64 * (cells as f64).ln())];
    for cell in 0..cells {
        let next = |(counts, left, ln): (Vec<u64>, u64, f64)| {
            let least = if cell + 1 == cells { left } else { 0 };
            let one = move |c| ([&counts[..], &[c]].concat(), left - c, ln - ln_factorial(c));
            (least..=left).map(one).collect::<Vec<_>>()
        };
        all = all.into_iter().flat_map(next).collect();
    }
    all.into_iter().map(|(counts, _, ln)| (counts, ln.exp())).collect()
}

/// ln E e^(t nD), exactly: of so many samples in so many cells, a power of two of them. The coefficient of z^n in the product of one series for
/// each cell, sum of e^(t c ln(c/m)) m^c / c! z^c with m = n/k; z is such that what counts is neither too large nor too small for a float.
#[cfg(test)]
fn ln_moment(samples: usize, cells: usize, t: f64) -> f64 {
    let mean = samples as f64 / cells as f64;
    let term = |c: usize| {
        let tilted = if c == 0 { 0.0 } else { t * c as f64 * (c as f64 / mean).ln() };
        (tilted - t * c as f64 + c as f64 * mean.ln() - mean - ln_factorial(c as u64)).exp()
    };
    let mut series: Vec<f64> = (0..=samples).map(term).collect();
    let mut scale = 0.0;
    for _ in 0..cells.ilog2() {
        let product = |n: usize| series[..=n].iter().zip(series[..=n].iter().rev()).map(|(a, b)| a * b).sum();
        let squared: Vec<f64> = (0..=samples).map(product).collect();
        let largest = squared.iter().copied().fold(0.0, f64::max);
        series = squared.iter().map(|v| v / largest).collect();
        scale = 2.0 * scale + largest.ln();
    }
    // By the probability of n under Poisson's distribution, which the total of independent cells has.
    let n = samples as f64;
    let total = n * n.ln() - n - ln_factorial(samples as u64);
    scale + series[samples].ln() + t * n - total
}

#[test]
fn moments_are_below_what_bounds_are_made_of() {
    for (samples, cells) in [(80, 16), (120, 16), (160, 16), (640, 16), (1024, 16), (1280, 256)] {
        for t in [0.3, 0.5, 0.7, 0.8, 0.85, 0.9] {
            let power = ln_moment(samples, cells, t) / -(1.0 - t).ln() / (cells - 1) as f64;
            assert!((0.45..POWER).contains(&power), "{samples} in {cells}, t = {t}: {power}");
        }
    }
}

/// By the exact distribution, bounds hold, and are not far too large.
#[test]
fn bounds_are_exceeded_as_rarely_as_they_say() {
    let statistic = |add: &dyn Fn(&mut Family)| {
        let mut family = Family::new(1.0);
        add(&mut family);
        family.members[0].statistic
    };
    for (samples, cells) in [(10, 2), (600, 2), (60, 3), (40, 4)] {
        let all = all_counts(samples, cells);
        assert!((all.iter().map(|(_, p)| p).sum::<f64>() - 1.0).abs() < 1e-9);
        for probability in [1e-2, 1e-4, 1e-6] {
            let bound = bound(cells - 1, probability);
            let beyond = |counts: &[u64]| statistic(&|f| f.uniform(String::new, counts)) >= bound;
            let found: f64 = all.iter().filter(|(counts, _)| beyond(counts)).map(|(_, p)| p).sum();
            assert!(found <= probability, "{samples} in {cells}: {found}, at most {probability}");
            let is_possible = samples as f64 * (cells as f64).ln() > 2.0 * bound;
            assert!(found > probability / 1e4 || !is_possible, "{samples} in {cells}: {found}");
        }
    }
    let lots = [all_counts(15, 3), all_counts(24, 3)];
    for probability in [1e-2, 1e-4] {
        let bound = bound(4, probability);
        let both = lots[0].iter().flat_map(|a| lots[1].iter().map(move |b| (a, b)));
        let beyond = both.filter(|((a, _), (b, _))| statistic(&|f| f.equal(String::new, a, b)) >= bound);
        let found: f64 = beyond.map(|((_, p), (_, q))| p * q).sum();
        assert!(found <= probability, "two lots: {found}, at most {probability}");
    }
}

/// The statistic of two lots is the entropy of both together less that of each.
#[test]
fn samples_of_different_sizes_are_compared() {
    let (a, b) = ([10, 20, 30], [40, 20, 60]);
    let entropy = |counts: &[u64]| {
        let n: u64 = counts.iter().sum();
        counts.iter().map(|&c| -(c as f64) * (c as f64 / n as f64).ln()).sum::<f64>()
    };
    let expected = entropy(&[50, 40, 90]) - entropy(&a) - entropy(&b);
    let mut family = Family::new(1.0);
    family.equal(String::new, &a, &b);
    assert!((family.members[0].statistic - expected).abs() < 1e-9 && expected > 1.0, "{expected}");
}

/// Uniform bits: 200 positions of 300 samples.
#[cfg(test)]
fn uniform_rows() -> Vec<Vec<u64>> {
    let prg = privet_ring::prg::Prg::new(&privet_ring::prg::Seed::from_bytes([3; 16]));
    let row = |i| {
        let mut row = prg.stream(i).words(5, u64::MAX);
        row[4] &= u64::MAX >> 20;
        row
    };
    (0..200).map(row).collect()
}

#[test]
fn a_constant_sum_is_found_and_named() {
    let (mut rows, samples) = (uniform_rows(), 300);
    assert_eq!(constant_sum(&rows, samples), None);
    rows[150] =
        (0..5).map(|w| rows[3][w] ^ rows[77][w] ^ if w == 4 { u64::MAX >> 20 } else { u64::MAX }).collect();
    assert_eq!(constant_sum(&rows, samples), Some(vec![3, 77, 150]));
}

/// Of 300 samples, a sum that is 1 in 75 of them; the two bits are uniform.
#[test]
fn a_biased_pair_is_found() {
    let (mut rows, samples) = (uniform_rows(), 300);
    let some = [3, 77];
    assert_eq!(biased_pair(&rows, &some, samples, 1e-6), None);
    rows[150] = (0..5).map(|w| rows[77][w] ^ rows[5][w] & rows[6][w]).collect();
    assert_eq!(biased_pair(&rows, &some, samples, 1e-6), Some((77, 150)));
    assert_eq!(biased_pair(&rows, &some[..1], samples, 1e-6), None);
    rows[150] = rows[77].clone();
    assert_eq!(biased_pair(&rows, &some, samples, 1e-6), Some((77, 150)), "two bits that are always equal");
}
