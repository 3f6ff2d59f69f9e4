//! `--grid`: a sheet of pictures whose options differ from row to row and from column to column.

use clap::Args;

use super::prompts::Line;
use crate::error::{Error, Result, instead};
use crate::image::{Picture, sheet};

#[derive(Debug, Args)]
pub(super) struct GridArgs {
    /// Draw a sheet instead: `rows=OPTION:A,B,..` and `cols=OPTION:A,B,..`, one or both; OPTION is `prompt` or one
    /// without its dashes, and `\,` a comma in a value
    #[arg(long, value_name = "AXIS", num_args = 1..=2, value_parser = axis)]
    #[arg(conflicts_with_all = ["prompts", "save_latents"])]
    grid: Vec<Axis>,
}

/// One direction of a sheet.
#[derive(Debug, Clone, PartialEq)]
struct Axis {
    is_across: bool,
    option: String,
    values: Vec<String>,
}

fn axis(text: &str) -> Result<Axis, String> {
    let expected = "expected rows=OPTION:A,B or cols=OPTION:A,B; a prompt comes before --grid, or after another option";
    let (name, rest) = text.split_once('=').ok_or(expected)?;
    let (option, values) = rest.split_once(':').ok_or(expected)?;
    let is_across = match name {
        "cols" | "columns" => true,
        "rows" => false,
        _ => return Err(expected.into()),
    };
    // What takes no value has none that differ.
    let known = super::each::OWN.iter().copied().filter(|name| *name != "mask-invert").chain(["prompt"]);
    if !known.clone().any(|known| known == option) && option != "cfg" && option != "cfg-scale" {
        return Err(format!("{option} is not an option that can differ in a sheet; {}", instead(option, known)));
    }
    let mut parts = vec![String::new()];
    let mut signs = values.chars().peekable();
    while let Some(sign) = signs.next() {
        match (sign, parts.last_mut()) {
            ('\\', Some(part)) if signs.peek() == Some(&',') => part.extend(signs.next()),
            (',', _) => parts.push(String::new()),
            (sign, Some(part)) => part.push(sign),
            (_, None) => {}
        }
    }
    if option == "seed" && parts.iter().any(|part| part == "-1") {
        return Err("a seed of -1 is another one each time: give the numbers".into());
    }
    Ok(Axis { is_across, option: option.into(), values: parts })
}

/// A sheet: its axes, of which one may be a single place without a label.
#[derive(Debug)]
pub(super) struct Grid {
    rows: Option<Axis>,
    columns: Option<Axis>,
}

impl GridArgs {
    /// The sheet, if there is one.
    ///
    /// # Errors
    /// If both axes go the same way, or are of one option.
    pub(super) fn read(&self) -> Result<Option<Grid>> {
        let (columns, rows): (Vec<_>, Vec<_>) = self.grid.iter().cloned().partition(|axis| axis.is_across);
        if rows.len() > 1 || columns.len() > 1 {
            return Err(Error::usage("--grid has one rows=.. and one cols=.. at most"));
        }
        let grid = Grid { rows: rows.into_iter().next(), columns: columns.into_iter().next() };
        match &grid {
            Grid { rows: None, columns: None } => Ok(None),
            Grid { rows: Some(rows), columns: Some(columns) } if rows.option == columns.option => {
                Err(Error::usage(format!("--grid has {} for its rows and its columns", rows.option)))
            }
            _ => Ok(Some(grid)),
        }
    }
}

impl Grid {
    /// Every place's prompt and options, row by row.
    pub(super) fn lines(&self, prompt: &str) -> Vec<Line> {
        let one = [String::new()];
        let [rows, columns] = [&self.rows, &self.columns];
        let values = |axis: &'_ Option<Axis>| axis.as_ref().map_or(one.to_vec(), |axis| axis.values.clone());
        let (rows_of, columns_of) = (values(rows), values(columns));
        let places = rows_of.iter().flat_map(|row| columns_of.iter().map(move |column| [row, column]));
        places
            .map(|values| {
                let mut line = Line { number: None, prompt: prompt.into(), options: Vec::new() };
                for (axis, value) in [rows, columns].into_iter().zip(values) {
                    match axis {
                        Some(Axis { option, .. }) if option == "prompt" => line.prompt.clone_from(value),
                        Some(Axis { option, .. }) => line.options.push(format!("--{option}={value}")),
                        None => {}
                    }
                }
                line
            })
            .collect()
    }

    /// How many pictures stand across and down.
    pub(super) fn places(&self) -> [usize; 2] {
        [&self.columns, &self.rows].map(|axis| axis.as_ref().map_or(1, |axis| axis.values.len()))
    }

    /// The sheet of these pictures, which are in the order of [`Grid::lines`]. Its parameters are the first picture's,
    /// and what differs.
    pub(super) fn sheet(&self, pictures: &[Picture]) -> Picture {
        let labels = |axis: &Option<Axis>| match axis {
            None => Vec::new(),
            Some(Axis { option, values, .. }) if option == "prompt" => values.clone(),
            Some(Axis { option, values, .. }) => values.iter().map(|value| format!("{option} {value}")).collect(),
        };
        let made = sheet(pictures, &labels(&self.rows), &labels(&self.columns));
        let mut parameters = pictures.first().and_then(|picture| picture.parameters.clone()).unwrap_or_default();
        for (name, axis) in [("rows", &self.rows), ("columns", &self.columns)] {
            if let Some(Axis { option, values, .. }) = axis {
                let value = serde_json::Value::from(format!("{option}: {}", values.join(", ")));
                parameters += &format!(", Grid {name}: {value}");
            }
        }
        Picture { parameters: Some(parameters), ..made }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_is_an_option_and_its_values() {
        let read = axis(r"cols=prompt:a cat\, asleep,a dog").unwrap();
        assert_eq!((read.is_across, read.values), (true, vec!["a cat, asleep".into(), "a dog".into()]));
        for (text, part) in [
            ("x", "expected rows="),
            ("rows=steps", "expected"),
            ("rows=stesp:1", "did you mean steps"),
            ("rows=seed:1,-1", "give the numbers"),
        ] {
            let error = axis(text).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn every_place_has_its_options_row_by_row() {
        let args = |axes: &[&str]| GridArgs { grid: axes.iter().map(|text| axis(text).unwrap()).collect() };
        let grid = args(&["cols=guidance:3,7", "rows=prompt:a,b"]).read().unwrap().unwrap();
        let lines = grid.lines("c").into_iter().map(|line| format!("{} {}", line.prompt, line.options.join(" ")));
        assert_eq!(lines.collect::<Vec<_>>(), ["a --guidance=3", "a --guidance=7", "b --guidance=3", "b --guidance=7"]);
        assert!(args(&[]).read().unwrap().is_none());
        for wrong in [["rows=steps:1", "rows=seed:1"], ["rows=steps:1", "cols=steps:2"]] {
            assert!(args(&wrong).read().is_err());
        }
    }
}
