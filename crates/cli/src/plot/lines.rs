//! Layout and drawing of charts of lines.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::chart::{GRID, Pen, Shade, shown};

/// Lines over a common axis.
#[derive(Debug, Clone)]
pub(crate) struct Lines {
    pub(crate) title: String,
    /// What the horizontal axis is.
    pub(crate) across: String,
    /// Whether its values are few and whole, each with a tick and a mark.
    pub(crate) is_counted: bool,
    pub(crate) series: Vec<Series>,
}

/// One line.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    pub(crate) label: String,
    pub(crate) shade: Shade,
    pub(crate) points: Vec<(f64, f64)>,
}

const LEFT: i32 = 80;
const RIGHT: i32 = 936;
const MARGIN: i32 = 16;
const TITLE: i32 = 40;
/// Of a row of the legend.
const ROW: i32 = 18;
const PLOT: i32 = 240;
const FOOTER: i32 = 52;
/// Between entries of the legend.
const SPACE: i32 = 18;
const MARK: i32 = 22;

impl Lines {
    /// Before scaling.
    pub(super) fn height(&self) -> i32 {
        TITLE + ROW * self.rows().len() as i32 + PLOT + FOOTER
    }

    /// Entries of the legend by rows, each with its place.
    fn rows(&self) -> Vec<Vec<(i32, &Series)>> {
        let mut rows: Vec<Vec<(i32, &Series)>> = Vec::new();
        let mut x = RIGHT;
        for series in &self.series {
            // Wider than the font, so that nothing touches.
            let width = MARK + 8 * series.label.chars().count() as i32 + SPACE;
            if x + width > RIGHT {
                rows.push(Vec::new());
                x = LEFT;
            }
            rows.last_mut().expect("just pushed").push((x, series));
            x += width;
        }
        rows
    }

    pub(super) fn draw<B: DrawingBackend>(&self, pen: &Pen<'_, B>) -> anyhow::Result<()> {
        pen.text(&self.title, MARGIN, 20, 16, HPos::Left)?;
        let mut y = TITLE;
        for row in self.rows() {
            for (x, series) in row {
                pen.bar(x, x + MARK - 6, y + ROW / 2 - 2, 4, series.shade.colour())?;
                pen.text(&series.label, x + MARK, y + ROW / 2, 12, HPos::Left)?;
            }
            y += ROW;
        }
        let (top, bottom) = (y + 6, y + PLOT);
        let points =
            || self.series.iter().flat_map(|s| &s.points).filter(|(x, y)| x.is_finite() && y.is_finite());
        let most = |f: fn(&(f64, f64)) -> f64| points().map(f).fold(0.0, f64::max);
        let (widest, highest) = (most(|p| p.0), most(|p| p.1));
        let least = if self.is_counted { points().map(|p| p.0).fold(widest, f64::min) } else { 0.0 };
        let vertical = ticks(highest);
        let ceiling = vertical.last().copied().unwrap_or(1.0);
        let across: Vec<f64> = if self.is_counted {
            let mut counted: Vec<f64> = points().map(|p| p.0).collect();
            counted.sort_by(f64::total_cmp);
            counted.dedup();
            counted
        } else {
            ticks(widest)
        };
        let end = across.last().copied().unwrap_or(1.0).max(least + f64::MIN_POSITIVE);
        let at_x = |value: f64| {
            let share = if end > least { (value - least) / (end - least) } else { 0.5 };
            LEFT + (share * f64::from(RIGHT - LEFT - 10)).round() as i32
        };
        let at_y = |value: f64| bottom - (value / ceiling * f64::from(bottom - top)).round() as i32;
        for value in &vertical {
            pen.line(LEFT, at_y(*value), RIGHT, at_y(*value), GRID)?;
            pen.text(&shown(*value), LEFT - 8, at_y(*value), 11, HPos::Right)?;
        }
        for value in &across {
            pen.line(at_x(*value), bottom, at_x(*value), bottom + 4, BLACK)?;
            pen.text(&shown(*value), at_x(*value), bottom + 13, 11, HPos::Center)?;
        }
        pen.line(LEFT, top, LEFT, bottom, BLACK)?;
        pen.line(LEFT, bottom, RIGHT, bottom, BLACK)?;
        pen.text(&self.across, (LEFT + RIGHT) / 2, bottom + 31, 12, HPos::Center)?;
        for series in &self.series {
            let places: Vec<(i32, i32)> = series
                .points
                .iter()
                .filter(|(x, y)| x.is_finite() && y.is_finite())
                .map(|(x, y)| (at_x(*x), at_y(*y)))
                .collect();
            pen.path(&places, series.shade.colour())?;
            // A line of one point would not be seen.
            if self.is_counted || places.len() == 1 {
                for (x, y) in places {
                    pen.bar(x - 3, x + 3, y - 3, 6, series.shade.colour())?;
                }
            }
        }
        Ok(())
    }
}

/// From 0 to `most` or a little more, in four to eight round steps.
fn ticks(most: f64) -> Vec<f64> {
    let most = if most > 0.0 && most.is_finite() { most } else { 1.0 };
    let power = 10f64.powf((most / 6.0).log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|s| s * power).into_iter().find(|step| most / step <= 7.0);
    let step = step.unwrap_or(10.0 * power);
    (0..=(most / step).ceil() as u32).map(|i| f64::from(i) * step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_reach_the_most() {
        assert_eq!(ticks(100.0), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!(ticks(0.0), ticks(1.0));
        for most in [0.003, 0.7, 1.0, 3.0, 6.5, 12.0, 199.0, 554.2, 1e9] {
            let ticks = ticks(most);
            assert!((4..=9).contains(&ticks.len()), "{most}: {ticks:?}");
            assert!(
                *ticks.last().unwrap() >= most * 0.999_999 && ticks[ticks.len() - 2] < most,
                "{most}: {ticks:?}"
            );
        }
    }

    #[test]
    fn legends_wrap_and_stay_inside() {
        let series = |i: usize| Series {
            label: format!("mobilenet-v3-large, worker {i}"),
            shade: Shade { hue: i, is_light: false },
            points: vec![(0.0, 1.0)],
        };
        let lines = Lines {
            title: String::new(),
            across: String::new(),
            is_counted: false,
            series: (0..9).map(series).collect(),
        };
        let rows = lines.rows();
        assert!(rows.len() > 2 && rows.iter().map(Vec::len).sum::<usize>() == 9);
        for (x, series) in rows.iter().flatten() {
            assert!(*x >= LEFT && x + MARK + 8 * series.label.len() as i32 <= RIGHT);
        }
    }
}
