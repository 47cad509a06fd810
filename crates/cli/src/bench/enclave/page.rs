//! A page that shows charts and summary. It loads nothing but the files beside it.

use std::fmt::Write as _;

use super::rows::{Measured, SAMPLES, STAGES, SUMMARY, Summary};

/// A chart on the page: a title, and the name of its files without extension.
pub(super) struct Shown {
    pub(super) title: String,
    pub(super) name: String,
}

const STYLE: &str = "\
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1180px; margin: 2em auto; padding: 0 1em; color: #111; background: #fff }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin-top: 2em }
img { width: 100%; height: auto; border: 1px solid #ddd }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: 12px; white-space: nowrap }
th, td { padding: .2em .45em; text-align: right; border-bottom: 1px solid #e4e4e4 }
th:nth-child(-n+4), td:nth-child(-n+4) { text-align: left }
.insecure { color: #a30000; font-weight: bold }
";

/// The page.
pub(super) fn page(all: &[Measured], charts: &[Shown], tables: &[String], about: &str) -> String {
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src 'self'; style-src 'unsafe-inline'\">\n\
         <title>Models in and out of enclaves</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>Models in and out of enclaves</h1>\n"
    );
    let _ = writeln!(html, "<p>{}</p>", escape(about));
    if all.iter().any(|m| m.backend.contains("INSECURE")) {
        html += "<p class=\"insecure\">Rows of a backend that is called INSECURE come from development evidence: nothing was protected, \
                 and no enclave was there. They show what sealing, attestation and processes cost, not what SGX costs.</p>\n";
    }
    html += "<h2>Summary</h2>\n<div class=\"wide\"><table>\n<tr>";
    for name in [
        "model",
        "variant",
        "parts",
        "backend",
        "n",
        "load s",
        "decrypt s",
        "compute s",
        "transfer s",
        "total s",
        "p95 s",
        "peak MiB",
        "CPU s",
        "CPU %",
        "W",
        "× native",
    ] {
        let _ = write!(html, "<th>{}</th>", escape(name));
    }
    html += "</tr>\n";
    for measured in all {
        let native =
            all.iter().find(|m| m.variant == super::rows::Variant::Native && m.model == measured.model);
        let times = native.map(|native| measured.seconds() / native.seconds());
        html += &row(&measured.summary(), times);
    }
    html += "</table></div>\n<p>Medians over n inferences. Files: ";
    let files: Vec<String> =
        [SUMMARY, STAGES, SAMPLES].into_iter().map(str::to_owned).chain(tables.iter().cloned()).collect();
    let links = files.iter().map(|file| format!("<a href=\"{0}\">{0}</a>", escape(file)));
    html += &links.collect::<Vec<_>>().join(", ");
    html += ".</p>\n";
    for Shown { title, name } in charts {
        let (title, name) = (escape(title), escape(name));
        let _ = writeln!(
            html,
            "<h2>{title}</h2>\n<p><a href=\"{name}.png\"><img src=\"{name}.svg\" alt=\"{title}\"></a></p>"
        );
    }
    html + "</body>\n</html>\n"
}

fn row(summary: &Summary<'_>, times: Option<f64>) -> String {
    let seconds = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |v| format!("{v:.3}"));
    let one = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |v| format!("{v:.1}"));
    let cells = [
        escape(summary.model),
        summary.variant.name().to_owned(),
        summary.parts.map_or_else(|| "–".to_owned(), |p| p.to_string()),
        escape(summary.backend),
        summary.n.to_string(),
        seconds(summary.load_s_median),
        seconds(summary.decrypt_s_median),
        seconds(summary.compute_s_median),
        seconds(summary.transfer_s_median),
        seconds(summary.total_s_median),
        seconds(summary.total_s_p95),
        one(summary.peak_rss_bytes.map(|bytes| bytes as f64 / f64::from(1 << 20))),
        seconds(Some(summary.cpu_s)),
        one(summary.cpu_percent_median),
        one(summary.power_w),
        times.filter(|t| t.is_finite()).map_or_else(|| "–".to_owned(), |t| format!("{t:.2}")),
    ];
    let cells: Vec<String> = cells.iter().map(|cell| format!("<td>{cell}</td>")).collect();
    format!("<tr>{}</tr>\n", cells.join(""))
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}
