//! Pictures of results: charts of horizontal bars or of lines, as SVG or PNG.

mod chart;
mod lines;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, anyhow};
use image::ImageFormat;
use plotters::prelude::*;
use plotters::style::register_font;

pub(crate) use chart::{Axis, Bar, Chart, Group, Shade};
pub(crate) use lines::{Lines, Series};

use crate::exit::{Code, Failure};
use chart::{Area, Pen, failed};

/// Pictures need no fonts of the system; assets/fonts/README.md says where this one is from.
static FONT: &[u8] = include_bytes!("../../../../assets/fonts/DejaVuSans-latin.ttf");
/// Pixels of a PNG for each unit of length.
const SCALE: u32 = 2;

/// A chart of either kind.
#[derive(Debug, Clone)]
pub(crate) enum Figure {
    Bars(Chart),
    Lines(Lines),
}

impl Figure {
    fn height(&self) -> i32 {
        match self {
            Self::Bars(chart) => chart::height(chart),
            Self::Lines(lines) => lines.height(),
        }
    }
}

impl From<Chart> for Figure {
    fn from(chart: Chart) -> Self {
        Self::Bars(chart)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Svg,
    Png,
}

/// A file to draw in.
#[derive(Debug)]
pub(crate) struct Picture {
    path: PathBuf,
    format: Format,
}

impl Picture {
    /// Checks, before hours of work, that a picture can be written to `path`.
    ///
    /// # Errors
    /// An extension other than .svg and .png; a directory that is not there or cannot be written to.
    pub(crate) fn new(path: &Path) -> anyhow::Result<Self> {
        let usage =
            |problem: &str| Failure::error(Code::Usage, format!("--plot {}: {problem}", path.display()));
        let extension = path.extension().and_then(|e| e.to_str()).map(str::to_lowercase);
        let format = match extension.as_deref() {
            Some("svg") => Format::Svg,
            Some("png") => Format::Png,
            _ => return Err(usage("expected a file that ends in .svg or .png")),
        };
        if path.is_dir() {
            return Err(usage("this is a directory; expected a file"));
        }
        // What can be made here can be written here later.
        tempfile::tempfile_in(directory(path)).map_err(|e| {
            let text = format!("--plot {}: cannot write there: {e}", path.display());
            Failure::error(Code::Input, text)
        })?;
        Ok(Self { path: path.to_owned(), format })
    }

    /// Draws the charts, one below the other. The file appears whole or not at all.
    pub(crate) fn draw(&self, charts: &[Chart]) -> anyhow::Result<()> {
        let figures: Vec<Figure> = charts.iter().cloned().map(Figure::from).collect();
        self.figures(&figures)
    }

    /// [`Picture::draw`] of charts of both kinds.
    pub(crate) fn figures(&self, charts: &[Figure]) -> anyhow::Result<()> {
        let bytes = match self.format {
            Format::Svg => svg(charts)?.into_bytes(),
            Format::Png => png(charts)?,
        };
        let write = || -> anyhow::Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(directory(&self.path))?;
            file.write_all(&bytes)?;
            use std::os::unix::fs::PermissionsExt;
            file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
            file.persist(&self.path)?;
            Ok(())
        };
        write().with_context(|| format!("cannot write {}", self.path.display()))
    }
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn svg(charts: &[Figure]) -> anyhow::Result<String> {
    let mut text = String::new();
    let root = SVGBackend::with_string(&mut text, size(charts, 1)).into_drawing_area();
    draw(&root, charts, 1)?;
    drop(root);
    Ok(text)
}

fn png(charts: &[Figure]) -> anyhow::Result<Vec<u8>> {
    let (width, height) = size(charts, SCALE);
    let mut pixels = vec![255; width as usize * height as usize * 3];
    let root = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
    draw(&root, charts, SCALE)?;
    drop(root);
    let picture = image::RgbImage::from_raw(width, height, pixels).context("a picture of another size")?;
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png)?;
    Ok(bytes.into_inner())
}

/// Width and height of all charts.
fn size(charts: &[Figure], scale: u32) -> (u32, u32) {
    chart::size(charts.iter().map(Figure::height), scale)
}

/// Draws all charts on white, one below the other.
fn draw<B: DrawingBackend>(root: &Area<B>, charts: &[Figure], scale: u32) -> anyhow::Result<()> {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    let registered = REGISTERED.get_or_init(|| register_font("sans-serif", FontStyle::Normal, FONT).is_ok());
    anyhow::ensure!(*registered, "the built-in font is damaged");
    root.fill(&WHITE).map_err(failed)?;
    let mut top = 0;
    for figure in charts {
        let pen = Pen { root, scale: scale as i32, top };
        match figure {
            Figure::Bars(chart) => pen.chart(chart)?,
            Figure::Lines(lines) => lines.draw(&pen)?,
        }
        top += figure.height();
    }
    root.present().map_err(|e| anyhow!("cannot draw: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn charts() -> Vec<Figure> {
        let bar = |label: &str, parts: &[f64]| Bar {
            label: label.to_owned(),
            parts: parts.to_vec(),
            shade: Shade::default(),
            note: None,
        };
        let group = |label: &str, bars| Group { label: label.to_owned(), bars };
        let kinds = ["conv", "relu"].map(str::to_owned).to_vec();
        let bars = || vec![bar("a<b", &[0.5, 1.5]), bar("c & d", &[0.25, 0.0])];
        let bars = vec![
            Chart {
                title: "Shares".into(),
                axis: Axis::Share,
                series: kinds,
                groups: vec![group("m", bars())],
            },
            Chart {
                title: "Log".into(),
                axis: Axis::Log,
                series: Vec::new(),
                groups: vec![
                    group("m", vec![bar("x", &[0.003])]),
                    group("n", vec![bar("x", &[0.0]), bar("y", &[4e3])]),
                ],
            },
        ];
        let series = |hue: usize, points: &[(f64, f64)]| Series {
            label: format!("line <{hue}>"),
            shade: Shade { hue, is_light: false },
            points: points.to_vec(),
        };
        let lines = |is_counted| Lines {
            title: "Over time".into(),
            across: "seconds".into(),
            is_counted,
            series: vec![
                series(0, &[(0.0, 1.0), (1.0, f64::NAN), (2.0, 3.0)]),
                series(1, &[(1.0, 2.0)]),
                series(2, &[]),
            ],
        };
        let figures = bars.into_iter().map(Figure::from);
        figures.chain([Figure::Lines(lines(false)), Figure::Lines(lines(true))]).collect()
    }

    #[test]
    fn vector_graphics_are_well_formed() {
        let text = svg(&charts()).unwrap();
        assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"), "{text}");
        assert!(text.contains("a&lt;b") && text.contains("c &amp; d"), "{text}");
        // Every element closes itself or is closed.
        let opened = text.matches('<').count() - text.matches("</").count() - text.matches("<!").count();
        assert_eq!(opened, text.matches("/>").count() + text.matches("</").count());
    }

    #[test]
    fn bitmaps_decode_and_show_bars_and_text() {
        let bytes = png(&charts()).unwrap();
        let picture = image::load_from_memory_with_format(&bytes, ImageFormat::Png).unwrap().into_rgb8();
        assert_eq!(picture.dimensions(), size(&charts(), SCALE));
        let count =
            |wanted: RGBColor| picture.pixels().filter(|p| p.0 == [wanted.0, wanted.1, wanted.2]).count();
        let blue = count(chart::COLOURS[0]);
        assert!(blue > 1000, "{blue} pixels of bars");
        assert!(count(BLACK) > 100, "text is black");
    }

    #[test]
    fn paths_are_refused_before_anything_is_drawn() {
        let home = tempfile::tempdir().unwrap();
        let refuse = |name: &str| Picture::new(&home.path().join(name)).unwrap_err().to_string();
        assert!(refuse("x.jpg").contains(".svg or .png"));
        assert!(refuse("nowhere/x.svg").contains("cannot write there"));
        std::fs::create_dir(home.path().join("d.png")).unwrap();
        assert!(refuse("d.png").contains("directory"));
        let picture = Picture::new(&home.path().join("x.SVG")).unwrap();
        picture.figures(&charts()).unwrap();
        assert_eq!(std::fs::read_to_string(home.path().join("x.SVG")).unwrap(), svg(&charts()).unwrap());
    }
}
