//! A report as one page that needs nothing else: the devices' facts, bars per op, a roofline plot, every row.

use std::fmt::Write as _;

use super::{Report, attributes, clock, digits, flop_rate, percent, roofline, seconds, shapes, table};
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
                let _ = writeln!(
                    out,
                    "<section><h2>Roofline: {}</h2>{svg}{}</section>",
                    escape(&device.label),
                    legend(&rows)
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
                let device =
                    if self.devices.len() > 1 { format!(" · {}", escape(&row.device)) } else { String::new() };
                let label = format!("{}{device}", shapes(row));
                bar(out, &label, op, rates.share_of_roof, timing.summary.median);
            }
        }
        out.push_str("</section>\n");
    }

    fn network_section(&self, out: &mut String, network: &crate::lab::bench::profile::NetworkRow) {
        let _ = write!(
            out,
            "<section><h2>{}: {} <span class=\"dim\">± {} on {}, {}</span></h2><p>{} nodes, {}, {} of {}, \
             {} MiB of device memory; {} until the host knows.</p>",
            network.network,
            seconds(network.timing.summary.median),
            percent(network.timing.summary.spread),
            escape(&network.device),
            network.dtype,
            network.nodes,
            flop_rate(network.gflop_s),
            percent(network.share_of_arithmetic),
            self.arithmetic(&network.device),
            network.device_bytes >> 20,
            seconds(network.wall),
        );
        for op in &network.by_op {
            let label = format!("{} <span class=\"dim\">{} nodes</span>", op.op, op.nodes);
            bar(out, &label, &op.op, op.share, op.seconds);
        }
        out.push_str("</section>\n");
    }

    fn row_table(&self, out: &mut String) {
        let compared = self.rows.iter().any(|row| row.compared.is_some());
        out.push_str(
            "<section><h2>Rows</h2><div class=\"scroll\"><table><thead><tr><th>op<th>variant<th>dtype<th>shapes",
        );
        out.push_str(
            "<th class=n>median<th class=n>spread<th class=n>rate<th class=n>of arithmetic<th class=n>GB/s<th class=n>of copy",
        );
        out.push_str(if compared { "<th class=n>then → now</thead>" } else { "</thead>" });
        for row in &self.rows {
            let name = row.node.as_deref().unwrap_or(&row.op);
            let device = if self.devices.len() > 1 {
                format!("<br><small>{}</small>", escape(&row.device))
            } else {
                String::new()
            };
            let _ = write!(
                out,
                "<tr class=\"{}\"><td>{name}{device}<td>{}<td>{}<td>{}<br><small>{}</small>",
                if row.is_bad() { "bad" } else { "" },
                row.variant,
                row.dtype,
                shapes(row),
                escape(&attributes(row))
            );
            numbers(out, row);
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
    let _ = write!(
        out,
        "<div class=\"bar\"><span class=\"label\">{label}</span><span class=\"track\">\
         <i style=\"width:{:.1}%;background:hsl({} 62% 52%)\"></i></span>\
         <b>{}</b><span class=\"dim\">{}</span></div>",
        (share * 100.0).min(100.0),
        roofline::hue(op),
        percent(share),
        seconds(time),
    );
}

fn numbers(out: &mut String, row: &Row) {
    let (Some(timing), Some(rates)) = (&row.timing, &row.rates) else {
        let word = if row.verdict == Verdict::Refused { "refused" } else { "not timed" };
        let _ = write!(out, "<td colspan=6>{word}: {}", escape(row.reason.as_deref().unwrap_or_default()));
        return;
    };
    let warnings = timing.warnings.join("; ");
    let mark = if warnings.is_empty() { "" } else { " *" };
    let _ = write!(
        out,
        "<td class=n>{}<td class=n title=\"{}\">{}{mark}<td class=n>{}<td class=n>{}<td class=n>{}<td class=n>{}",
        seconds(timing.summary.median),
        escape(&warnings),
        percent(timing.summary.spread),
        flop_rate(rates.gflop_s),
        percent(rates.share_of_arithmetic),
        digits(rates.gb_s),
        percent(rates.share_of_copy),
    );
}

/// The adapter's facts as pairs.
fn facts(out: &mut String, device: &Device) {
    let _ = write!(
        out,
        "<section><h2>{}</h2><p>Ceilings measured in this run: <b>{}</b>. ",
        escape(&device.label),
        table::ceilings(&device.ceilings)
    );
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
