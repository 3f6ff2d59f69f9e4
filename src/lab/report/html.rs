//! A report as one page that needs nothing else: the devices' facts, bars per op, a roofline plot, every row.

use std::fmt::Write as _;

use super::{
    Report, attributes, clock, network_figures, percent, predicted, rate_figures, roofline, seconds, shapes, table,
};
use crate::gpu::statistics::Summary;
use crate::lab::bench::profile::NetworkRow;
use crate::lab::bench::{Device, Row, Verdict};

const STYLE: &str = include_str!("page.css");

impl Report {
    /// The report as one page that needs nothing else.
    pub fn page(&self) -> String {
        let mut out = String::from("<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">");
        out += "<meta name=\"viewport\" content=\"width=device-width\"><title>ornstein bench</title>";
        let _ = write!(out, "<style>{STYLE}</style>\n<main><h1>ornstein bench</h1>");
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
                let _ = writeln!(out, "<section><h2>Roofline: {label}</h2>{svg}{legend}</section>");
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
                bar(out, &(shapes(row) + &device), op, rates.share_of_roof, timing.summary.median);
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
        let (device, arithmetic) = (escape(&network.device), self.arithmetic(&network.device));
        let mib = network.device_bytes >> 20;
        *out +=
            &format!("<section><h2>{name}: {median} <span class=\"dim\">± {spread} on {device}, {dtype}</span></h2>");
        *out += &format!("<p>{nodes} nodes, {rate}, {share} of {arithmetic}, {mib} MiB of device memory; ");
        *out += &format!("{wall} until the host knows.</p>");
        if let Some(predicted) = &network.predicted {
            let _ = write!(out, "<p>Predicted: {}</p>", escape(&predicted::line(predicted)));
        }
        for op in &network.by_op {
            let label = format!("{} <span class=\"dim\">{} nodes</span>", op.op, op.nodes);
            bar(out, &label, &op.op, op.share, op.seconds);
        }
        out.push_str("</section>\n");
    }

    fn row_table(&self, out: &mut String) {
        let compared = self.rows.iter().any(|row| row.compared.is_some());
        let compiled = self.rows.iter().any(|row| row.compiled != Summary::default());
        *out += "<section><h2>Rows</h2><div class=\"scroll\"><table><thead><tr><th>op<th>variant<th>dtype<th>shapes";
        let columns = ["median", "spread", "rate", "of arithmetic", "GB/s", "of copy"].into_iter();
        let told = compiled.then_some(["registers", "spills", "occupancy"]).into_iter().flatten();
        out.extend(
            columns.chain(told).chain(compared.then_some("then → now")).map(|name| format!("<th class=n>{name}")),
        );
        *out += "</thead>";
        for row in &self.rows {
            let class = if row.is_bad() { "bad" } else { "" };
            let name = row.node.as_deref().unwrap_or(&row.op);
            let device = self.device_of(row).map(|device| format!("<br><small>{device}</small>")).unwrap_or_default();
            let _ = write!(out, "<tr class=\"{class}\"><td>{name}{device}<td>{}<td>{}", row.variant, row.dtype);
            let _ = write!(out, "<td>{}<br><small>{}</small>", shapes(row), escape(&attributes(row)));
            numbers(out, row);
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
/// An op's share of something, with the time that it took.
fn bar(out: &mut String, label: &str, op: &str, share: f64, time: f64) {
    let (width, hue) = ((share * 100.0).min(100.0), roofline::hue(op));
    let _ = write!(out, "<div class=\"bar\"><span class=\"label\">{label}</span><span class=\"track\">");
    let _ = write!(out, "<i style=\"width:{width:.1}%;background:hsl({hue} 62% 52%)\"></i></span>");
    let _ = write!(out, "<b>{}</b><span class=\"dim\">{}</span></div>", percent(share), seconds(time));
}

fn numbers(out: &mut String, row: &Row) {
    let (Some(timing), Some(rates)) = (&row.timing, &row.rates) else {
        let word = if row.verdict == Verdict::Refused { "refused" } else { "not timed" };
        let _ = write!(out, "<td colspan=6>{word}: {}", escape(row.reason.as_deref().unwrap_or_default()));
        return;
    };
    let warnings = escape(&timing.warnings.join("; "));
    let mark = if warnings.is_empty() { "" } else { " *" };
    let (median, spread) = (seconds(timing.summary.median), percent(timing.summary.spread));
    let _ = write!(out, "<td class=n>{median}<td class=n title=\"{warnings}\">{spread}{mark}");
    out.extend(rate_figures(rates).map(|figure| format!("<td class=n>{figure}")));
}

/// The adapter's facts as pairs.
fn facts(out: &mut String, device: &Device) {
    let (label, ceilings) = (escape(&device.label), table::ceilings(&device.ceilings));
    let _ = write!(out, "<section><h2>{label}</h2><p>Ceilings measured in this run: <b>{ceilings}</b>. ");
    let _ = write!(out, "Times are {}.</p><dl>", clock(device.clock));
    let pairs = device.caps.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    for (key, value) in pairs {
        let value = match (value.as_u64(), value.as_str()) {
            (Some(bytes), _) if bytes >= 1 << 20 => format!("{} MiB", bytes >> 20),
            (_, Some(text)) => text.to_string(),
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
    use crate::lab::ceilings::Ceilings;

    fn page(compiled: Summary) -> String {
        let device = Device {
            label: "card vulkan".into(),
            clock: Clock::Wall,
            ceilings: Ceilings::default(),
            tuned: Default::default(),
            caps: serde_json::Value::Null,
        };
        Report { device, devices: Vec::new(), networks: Vec::new(), rows: vec![Row { compiled, ..Row::default() }] }
            .page()
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
