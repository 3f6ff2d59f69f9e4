//! A report as one page that needs nothing else: the devices' facts, bars per op, a roofline plot, every row.

use std::collections::HashSet;
use std::fmt::Write as _;

use serde_json::Value;

use super::{
    About, Report, attributes, ceilings, clock, network_figures, percent, prediction, rate_figures, roofline, seconds,
    shapes,
};
use crate::error::counted;
use crate::gpu::statistics::Summary;
use crate::lab::bench::measure::Timing;
use crate::lab::bench::profile::NetworkRow;
use crate::lab::bench::{Device, Row, Verdict};

const STYLE: &str = include_str!("page.css");

impl Report {
    /// The report as one page that needs nothing else.
    pub fn page(&self) -> String {
        let mut out = String::from("<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">");
        out += "<meta name=\"viewport\" content=\"width=device-width\"><title>ornstein bench</title>";
        let _ = write!(out, "<style>{STYLE}</style>\n<main><h1>ornstein bench</h1>");
        let About { version, date, command } = &self.about;
        let _ = write!(out, "<p class=\"dim\">ornstein {version}, {date}<br><code>{}</code></p>", escape(command));
        for device in &self.devices {
            facts(&mut out, device);
        }
        for network in &self.networks {
            self.network_section(&mut out, network);
        }
        for device in &self.devices {
            let rows: Vec<&Row> = self.rows.iter().filter(|row| row.device == device.label).collect();
            if let Some(svg) = roofline::svg(device, &rows) {
                let (label, legend) = (escape(&device.label), legend(&rows));
                let _ = writeln!(
                    out,
                    "<section><h2>Roofline: {label}</h2><div class=\"scroll\">{svg}</div>{legend}</section>"
                );
            }
        }
        if self.networks.is_empty() {
            self.bars(&mut out);
        }
        self.row_table(&mut out);
        out += "</main></html>\n";
        out
    }

    /// For each op and device its share of the roof, row by row.
    fn bars(&self, out: &mut String) {
        out.push_str("<section><h2>Share of the nearer ceiling</h2>");
        let mut op = "";
        for group in self.groups() {
            for row in group {
                let (Some(timing), Some(rates)) = (&row.timing, &row.rates) else { continue };
                if row.op != op {
                    op = &row.op;
                    let _ = write!(out, "<h3>{op}</h3>");
                }
                let device = self.device_of(row).map(|device| format!(" · {device}")).unwrap_or_default();
                bar(out, &(shapes(&row.shapes) + &device), op, rates.share_of_roof, &time(row, timing));
            }
        }
        out.push_str("</section>\n");
    }

    /// What a row's device is called, where there are several.
    fn device_of(&self, row: &Row) -> Option<String> {
        (self.devices.len() > 1).then(|| escape(&row.device))
    }

    fn network_section(&self, out: &mut String, network: &NetworkRow) {
        let NetworkRow { network: name, dtype, nodes, .. } = network;
        let [median, spread, wall, rate, share] = network_figures(network);
        let (device, arithmetic) = (escape(&network.device), self.arithmetic(network));
        let mib = network.device_bytes >> 20;
        *out +=
            &format!("<section><h2>{name}: {median} <span class=\"dim\">± {spread} on {device}, {dtype}</span></h2>");
        *out +=
            &format!("<p>{}, {rate}, {share} of {arithmetic}, {mib} MiB of device memory; ", counted(*nodes, "node"));
        *out += &format!("{wall} until the host knows.</p>");
        if let Some(predicted) = &network.predicted {
            let _ = write!(out, "<p>Predicted: {}</p>", escape(&prediction(predicted)));
        }
        for op in &network.by_op {
            let label = format!("{} <span class=\"dim\">{}</span>", op.op, counted(op.nodes, "node"));
            bar(out, &label, &op.op, op.share, &seconds(op.seconds));
        }
        out.push_str("</section>\n");
    }

    fn row_table(&self, out: &mut String) {
        let compared = self.rows.iter().any(|row| row.compared.is_some());
        let compiled = self.rows.iter().any(|row| row.compiled != Summary::default());
        *out += "<section><h2>Rows</h2><div class=\"scroll\"><table><thead><tr><th>op<th>variant<th>dtype<th>shapes";
        let columns = ["median ± spread", "rate", "of arithmetic", "GB/s", "of copy"].into_iter();
        let told = compiled.then_some(["registers", "spills", "occupancy"]).into_iter().flatten();
        out.extend(
            columns.chain(told).chain(compared.then_some("then → now")).map(|name| format!("<th class=n>{name}")),
        );
        *out += "</thead>";
        let mut told = HashSet::new();
        for row in &self.rows {
            let class = if row.is_bad() { "bad" } else { "" };
            let name = row.node.as_deref().unwrap_or(&row.op);
            let device = self.device_of(row).map(|device| format!("<br><small>{device}</small>")).unwrap_or_default();
            let _ = write!(out, "<tr class=\"{class}\"><td>{name}{device}<td>{}<td>{}", row.variant, row.dtype);
            let _ =
                write!(out, "<td>{}<br><small>{}</small>", shapes(&row.shapes), escape(&attributes(&row.attributes)));
            numbers(out, row, &mut told);
            if compiled {
                let Summary { registers, spills, occupancy, occupancy_unit, .. } = &row.compiled;
                let unit = escape(occupancy_unit.as_deref().unwrap_or_default());
                let figures = [registers, spills, occupancy].map(|n| n.map_or(String::new(), |n| n.to_string()));
                out.extend(figures.map(|figure| format!("<td class=n title=\"{unit}\">{figure}")));
            }
            if let Some(change) = row.compared {
                let mark = if change.exceeds { " class=\"n bad\"" } else { " class=n" };
                let _ = write!(out, "<td{mark}>x{:.2}", change.relative);
            }
        }
        out.push_str("</table></div></section>\n");
    }
}
/// A median with its spread, marked where that is worth little.
fn time(row: &Row, timing: &Timing) -> String {
    let (median, spread) = (seconds(timing.summary.median), percent(timing.summary.spread));
    match row.warning() {
        None => format!("{median} ± {spread}"),
        Some(word) => {
            let why = escape(&timing.warnings.join("; "));
            format!("{median} <span class=\"noisy\" title=\"{why}\">± {spread} {word}</span>")
        }
    }
}

/// An op's share of something, with the time that it took.
fn bar(out: &mut String, label: &str, op: &str, share: f64, time: &str) {
    let (width, hue) = ((share * 100.0).min(100.0), roofline::hue(op));
    let _ = write!(out, "<div class=\"bar\"><span class=\"label\">{label}</span><span class=\"track\">");
    let _ = write!(out, "<i style=\"width:{width:.1}%;background:hsl({hue} 62% 52%)\"></i></span>");
    let _ = write!(out, "<b>{}</b><span class=\"dim\">{}</span></div>", percent(share), time);
}

/// The columns of a row's time. A reason that an earlier row had is not said again.
fn numbers<'a>(out: &mut String, row: &'a Row, told: &mut HashSet<&'a str>) {
    let (Some(timing), Some(rates)) = (&row.timing, &row.rates) else {
        let word = match row.verdict {
            Verdict::Refused => "refused",
            _ if row.does_not_compile => "does not compile",
            _ => "not timed",
        };
        let reason = row.reason.as_deref().filter(|reason| told.insert(reason));
        let _ =
            write!(out, "<td colspan=5>{word}{}", reason.map_or_else(String::new, |why| format!(": {}", escape(why))));
        return;
    };
    let _ = write!(out, "<td class=n>{}", time(row, timing));
    out.extend(rate_figures(rates).map(|figure| format!("<td class=n>{figure}")));
}

/// The adapter's facts as pairs.
fn facts(out: &mut String, device: &Device) {
    let (label, spread) = (escape(&device.label), percent(device.ceilings.spread));
    let ceilings = ceilings(&device.ceilings);
    let _ = write!(
        out,
        "<section><h2>{label}</h2><p>Ceilings measured in this run: <b>{ceilings}</b> \
         <span class=n>(± {spread})</span>. "
    );
    let _ = write!(out, "Times are {}.</p><dl>", clock(device.clock));
    let is_empty = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    let pairs = device.caps.as_object().into_iter().flatten().filter(|(_, value)| !is_empty(value));
    for (key, value) in pairs {
        let value = match value {
            Value::Number(number) => match number.as_u64() {
                Some(bytes) if bytes >= 1 << 20 => format!("{} MiB", bytes >> 20),
                _ => number.to_string(),
            },
            Value::String(text) => text.clone(),
            Value::Bool(true) => "yes".into(),
            Value::Bool(false) => "no".into(),
            Value::Array(values) => values.iter().map(Value::to_string).collect::<Vec<_>>().join(", "),
            _ => value.to_string(),
        };
        let _ = write!(out, "<div><dt>{}<dd>{}</div>", key.replace('_', " "), escape(&value));
    }
    out.push_str("</dl></section>\n");
}

/// The colours of the plot's dots.
fn legend(rows: &[&Row]) -> String {
    let mut ops: Vec<&str> =
        rows.iter().filter(|row| row.flops > 0 && row.rates.is_some()).map(|row| row.op.as_str()).collect();
    ops.dedup();
    let entry = |op: &&str| format!("<span><i style=\"background:hsl({} 62% 52%)\"></i>{op}</span>", roofline::hue(op));
    format!("<p class=\"legend\">{}</p>", ops.iter().map(entry).collect::<String>())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::Clock;
    use crate::lab::bench::stats;
    use crate::lab::ceilings::Ceilings;

    fn page(compiled: Summary) -> String {
        let device = Device {
            label: "card vulkan".into(),
            clock: Clock::Wall,
            ceilings: Ceilings::default(),
            tuned: Default::default(),
            caps: serde_json::Value::Null,
        };
        let (rows, command) = (vec![Row { compiled, ..Row::default() }], "ornstein bench --device 'a <b>'".into());
        let about = About { version: "1", date: "today".into(), command };
        Report { about, device, devices: Vec::new(), networks: Vec::new(), rows }.page()
    }

    #[test]
    fn a_page_says_where_it_comes_from() {
        let page = page(Summary::default());
        assert!(page.contains("ornstein 1, today") && page.contains("--device 'a &lt;b&gt;'"), "{page}");
    }

    #[test]
    fn a_time_shows_its_noise() {
        let mut timing = Timing {
            summary: stats::Summary::of(&[1.0, 1.0, 2.0, 2.0]),
            clock: Clock::Wall,
            repeats: 1,
            warnings: Vec::new(),
        };
        assert_eq!(time(&Row::default(), &timing), "1.50 s ± 67 %");
        timing.warnings = vec!["noisy: stop other work".into()];
        let noisy = time(&Row { timing: Some(timing.clone()), ..Row::default() }, &timing);
        assert!(noisy.ends_with("title=\"noisy: stop other work\">± 67 % noisy</span>"), "{noisy}");
    }

    #[test]
    fn a_drivers_figures_have_columns_where_it_tells_any() {
        let unit = Some("Max warps/SM".to_string());
        let told = Summary { registers: Some(88), occupancy: Some(20), occupancy_unit: unit, ..Summary::default() };
        let page_of_told = page(told);
        let figures = ["88", "", "20"].map(|figure| format!("<td class=n title=\"Max warps/SM\">{figure}")).concat();
        assert!(page_of_told.contains("<th class=n>spills") && page_of_told.contains(&figures), "{page_of_told}");
        assert!(!page(Summary::default()).contains("<th class=n>spills"));
    }
}
