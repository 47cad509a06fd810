//! Layout and drawing of charts of horizontal bars.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Bars in groups, a group for each model.
#[derive(Debug, Clone)]
pub(crate) struct Chart {
    pub(crate) title: String,
    pub(crate) axis: Axis,
    /// What the parts of bars are, for the legend; bars of one part go without.
    pub(crate) series: Vec<String>,
    pub(crate) groups: Vec<Group>,
}

/// Bars that belong together.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) label: String,
    pub(crate) bars: Vec<Bar>,
}

/// A bar, or several parts one behind the other.
#[derive(Debug, Clone)]
pub(crate) struct Bar {
    pub(crate) label: String,
    pub(crate) parts: Vec<f64>,
    /// Its colour, where it has one part.
    pub(crate) shade: Shade,
    /// What stands behind it, instead of its value.
    pub(crate) note: Option<String>,
}

/// A colour: the same for the same thing in all charts.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Shade {
    /// Index of the colour.
    pub(crate) hue: usize,
    /// Whether it is lighter, for a second bar of the same thing.
    pub(crate) is_light: bool,
}

impl Shade {
    pub(super) fn colour(self) -> RGBColor {
        let RGBColor(red, green, blue) = COLOURS[self.hue % COLOURS.len()];
        let lighter = |part: u8| 255 - (255 - part) / 2;
        if self.is_light {
            RGBColor(lighter(red), lighter(green), lighter(blue))
        } else {
            RGBColor(red, green, blue)
        }
    }
}

/// What lengths mean.
#[derive(Debug, Clone)]
pub(crate) enum Axis {
    /// Parts of the whole, which is as long for every bar.
    Share,
    /// Powers of ten.
    Log,
}

/// Distinguishable for everyone (Okabe and Ito).
pub(super) const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(153, 153, 153),
    RGBColor(213, 94, 0),
    RGBColor(86, 180, 233),
];
pub(super) const GRID: RGBColor = RGBColor(221, 221, 221);

/// Lengths, before scaling.
const WIDTH: i32 = 960;
const MARGIN: i32 = 16;
/// Where bars begin; left of it stand labels.
const LEFT: i32 = 250;
/// Where bars end; right of it stand values.
const RIGHT: i32 = 840;
/// Above the bars: title and, if there is one, legend.
const TITLE: i32 = 40;
const LEGEND: i32 = 20;
const FOOTER: i32 = 40;
const BAR: i32 = 16;
const GAP: i32 = 10;

/// Width and height of charts below each other, which are so high.
pub(super) fn size(heights: impl Iterator<Item = i32>, scale: u32) -> (u32, u32) {
    let height: i32 = heights.sum();
    (WIDTH as u32 * scale, (height.max(2 * MARGIN)) as u32 * scale)
}

fn header(chart: &Chart) -> i32 {
    if chart.series.is_empty() { TITLE } else { TITLE + LEGEND }
}

/// Whether a group's label stands above its bars: beside theirs there is too little room. Widths are about what these sizes take.
fn has_headings(chart: &Chart) -> bool {
    let chars = |text: &str| text.chars().count() as i32;
    chart.groups.iter().any(|group| {
        let widest = group.bars.iter().map(|bar| chars(&bar.label)).max().unwrap_or(0);
        MARGIN + 8 * chars(&group.label) + 7 * widest + 6 > LEFT
    })
}

pub(super) fn height(chart: &Chart) -> i32 {
    let headings = if has_headings(chart) { chart.groups.len() } else { 0 };
    let bars = headings + chart.groups.iter().map(|g| g.bars.len()).sum::<usize>();
    header(chart) + FOOTER + BAR * bars as i32 + GAP * chart.groups.len() as i32
}

pub(super) type Area<B> = DrawingArea<B, Shift>;

/// What backends say; their errors may not leave this thread.
pub(super) fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow::anyhow!("cannot draw: {error}")
}

/// Draws in a chart's place.
pub(super) struct Pen<'a, B: DrawingBackend> {
    pub(super) root: &'a Area<B>,
    pub(super) scale: i32,
    pub(super) top: i32,
}

impl<B: DrawingBackend> Pen<'_, B> {
    pub(super) fn chart(&self, chart: &Chart) -> anyhow::Result<()> {
        let scale = if matches!(chart.axis, Axis::Log) { ", log scale" } else { "" };
        self.text(&format!("{}{scale}", chart.title), MARGIN, 20, 16, HPos::Left)?;
        let mut x = LEFT;
        for (hue, entry) in chart.series.iter().enumerate() {
            self.bar(x, x + 10, TITLE - 2, 10, Shade { hue, is_light: false }.colour())?;
            self.text(entry, x + 14, TITLE + 3, 12, HPos::Left)?;
            x += 30 + self.width(entry, 12);
        }
        let scale = Scale::new(chart);
        let bottom = height(chart) - FOOTER;
        for (value, label) in scale.ticks() {
            let x = scale.x(value);
            self.line(x, header(chart) - 4, x, bottom, GRID)?;
            self.text(&label, x, bottom + 9, 11, HPos::Center)?;
        }
        let mut y = header(chart);
        for group in &chart.groups {
            if has_headings(chart) {
                self.text(&group.label, MARGIN, y + BAR / 2, 12, HPos::Left)?;
                y += BAR;
            } else {
                let middle = y + BAR * group.bars.len() as i32 / 2;
                self.text(&group.label, MARGIN, middle, 12, HPos::Left)?;
            }
            for bar in &group.bars {
                self.whole_bar(chart, &scale, bar, y)?;
                y += BAR;
            }
            y += GAP;
        }
        self.line(LEFT, header(chart) - 4, LEFT, bottom, BLACK)
    }

    fn whole_bar(&self, chart: &Chart, scale: &Scale, bar: &Bar, y: i32) -> anyhow::Result<()> {
        self.text(&bar.label, LEFT - 6, y + BAR / 2, 11, HPos::Right)?;
        let total: f64 = bar.parts.iter().sum();
        let whole = if matches!(chart.axis, Axis::Share) { total.max(f64::MIN_POSITIVE) } else { 1.0 };
        let mut end = LEFT;
        let mut sum = 0.0;
        for (i, part) in bar.parts.iter().enumerate() {
            sum += part;
            let from = end;
            end = scale.x(sum / whole).max(from);
            let shade = if chart.series.is_empty() { bar.shade } else { Shade { hue: i, is_light: false } };
            if end > from {
                self.bar(from, end, y + 2, BAR - 4, shade.colour())?;
            }
        }
        let note = bar.note.clone().unwrap_or_else(|| shown(total));
        self.text(&note, end + 5, y + BAR / 2, 11, HPos::Left)
    }

    pub(super) fn text(&self, text: &str, x: i32, y: i32, size: i32, anchor: HPos) -> anyhow::Result<()> {
        let style = TextStyle::from(("sans-serif", size * self.scale).into_font())
            .color(&BLACK)
            .pos(Pos::new(anchor, VPos::Center));
        let at = (x * self.scale, (self.top + y) * self.scale);
        self.root.draw_text(text, &style, at).map_err(failed)
    }

    /// Of a text, before scaling.
    fn width(&self, text: &str, size: i32) -> i32 {
        let style = TextStyle::from(("sans-serif", size * self.scale).into_font());
        let estimated =
            self.root.estimate_text_size(text, &style).map(|(width, _)| width as i32 / self.scale);
        estimated.unwrap_or(text.len() as i32 * size / 2)
    }

    pub(super) fn bar(
        &self,
        from: i32,
        to: i32,
        y: i32,
        height: i32,
        colour: RGBColor,
    ) -> anyhow::Result<()> {
        let at = |x, y| (x * self.scale, (self.top + y) * self.scale);
        let rectangle = Rectangle::new([at(from, y), at(to, y + height)], colour.filled());
        self.root.draw(&rectangle).map_err(failed)
    }

    /// Joins points, thicker than [`Self::line`].
    pub(super) fn path(&self, points: &[(i32, i32)], colour: RGBColor) -> anyhow::Result<()> {
        let points: Vec<(i32, i32)> =
            points.iter().map(|(x, y)| (x * self.scale, (self.top + y) * self.scale)).collect();
        let path = PathElement::new(points, colour.stroke_width(2 * self.scale as u32));
        self.root.draw(&path).map_err(failed)
    }

    pub(super) fn line(&self, x0: i32, y0: i32, x1: i32, y1: i32, colour: RGBColor) -> anyhow::Result<()> {
        let at = |x, y| (x * self.scale, (self.top + y) * self.scale);
        let path = PathElement::new(vec![at(x0, y0), at(x1, y1)], colour.stroke_width(self.scale as u32));
        self.root.draw(&path).map_err(failed)
    }
}

/// From values to places.
enum Scale {
    /// Parts of one.
    Share,
    /// Exponents of ten.
    Log { least: i32, most: i32 },
}

impl Scale {
    fn new(chart: &Chart) -> Self {
        let bars = chart.groups.iter().flat_map(|g| &g.bars);
        let totals =
            || bars.clone().map(|b| b.parts.iter().sum::<f64>()).filter(|t| *t > 0.0 && t.is_finite());
        match chart.axis {
            Axis::Share => Self::Share,
            Axis::Log => {
                let least = totals().fold(f64::INFINITY, f64::min);
                let most = totals().fold(0.0, f64::max);
                if most == 0.0 {
                    return Self::Log { least: 0, most: 1 };
                }
                // The shortest bar has a length, too.
                let least = (least.log10() - 0.1).floor() as i32;
                Self::Log { least, most: (most.log10().ceil() as i32).max(least + 1) }
            }
        }
    }

    fn x(&self, value: f64) -> i32 {
        let share = match self {
            Self::Share => value,
            Self::Log { least, most } if value > 0.0 => {
                (value.log10() - f64::from(*least)) / f64::from(most - least)
            }
            Self::Log { .. } => 0.0,
        };
        LEFT + (share.clamp(0.0, 1.0) * f64::from(RIGHT - LEFT)).round() as i32
    }

    fn ticks(&self) -> Vec<(f64, String)> {
        match self {
            Self::Share => [0.0, 0.25, 0.5, 0.75, 1.0].map(|v| (v, format!("{:.0} %", v * 100.0))).into(),
            Self::Log { least, most } => {
                (*least..=*most).map(|e| (10f64.powi(e), shown(10f64.powi(e)))).collect()
            }
        }
    }
}

/// Three significant digits.
pub(super) fn shown(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let digits = (2 - value.abs().log10().floor() as i32).clamp(0, 6) as usize;
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_short() {
        let values = [0.0, 0.00123, 0.1, 1.0, 1.256, 12.0, 123.4, 1000.0, 5e-6].map(shown);
        assert_eq!(values, ["0", "0.00123", "0.1", "1", "1.26", "12", "123", "1000", "0.000005"]);
    }

    #[test]
    fn long_labels_stand_above_their_bars() {
        let bar = |label: &str| Bar {
            label: label.to_owned(),
            parts: vec![2.0],
            shade: Shade::default(),
            note: None,
        };
        let chart = |label: &str, bars: &[&str]| Chart {
            title: String::new(),
            axis: Axis::Log,
            series: Vec::new(),
            groups: vec![Group { label: label.to_owned(), bars: bars.iter().map(|l| bar(l)).collect() }],
        };
        let beside = chart("resnet50", &["2pc", "3pc"]);
        let above = chart("mobilenet-v3-large", &["worker", "split-worker in 12 (sample-INSECURE)"]);
        assert_eq!(height(&above), height(&beside) + BAR);
    }

    #[test]
    fn scales_reach_from_the_smallest_to_the_largest() {
        let bar = |value: f64| Bar {
            label: String::new(),
            parts: vec![value],
            shade: Shade::default(),
            note: None,
        };
        let chart = |axis, values: &[f64]| Chart {
            title: String::new(),
            axis,
            series: Vec::new(),
            groups: vec![Group { label: String::new(), bars: values.iter().copied().map(bar).collect() }],
        };
        let log = Scale::new(&chart(Axis::Log, &[0.02, 300.0, 0.0]));
        assert_eq!(
            log.ticks().iter().map(|(_, t)| t.as_str()).collect::<Vec<_>>(),
            ["0.01", "0.1", "1", "10", "100", "1000"]
        );
        assert_eq!((log.x(0.01), log.x(1000.0), log.x(0.0)), (LEFT, RIGHT, LEFT));
        assert!(log.x(0.02) > LEFT && log.x(300.0) < RIGHT);
        let share = Scale::new(&chart(Axis::Share, &[0.7, 3.0]));
        assert_eq!((share.x(0.0), share.x(1.0), share.ticks().len()), (LEFT, RIGHT, 5));
        let none = Scale::new(&chart(Axis::Log, &[0.0]));
        assert_eq!(none.x(0.0), LEFT);
    }
}
