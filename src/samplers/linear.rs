//! A sampler's whole run as sums, for a device that does the steps by itself: nearly every sampler's next latents are
//! a sum of the latents, the outputs and the noise of this and earlier evaluations, each times a number that the
//! schedule alone decides.
//!
//! The numbers are found by running the sampler on unit vectors, one for each of these: what it makes of them is the
//! numbers themselves.

use super::Sampler;

/// Most slots of a linear sampler. Nearly all need less than ten, but UniPC, which corrects each step by the one
/// before it, two for every step.
const MOST_SLOTS: usize = 64;

/// Every evaluation of a sampler as a sum. What later ones need of earlier ones is kept in slots.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearSampler {
    /// How many slots there are. The first latents are in slot 0.
    pub slots: usize,
    /// One for each evaluation, in order.
    pub steps: Vec<LinearStep>,
}

/// One evaluation: the network sees slot `latents` times `scale`, and the next latents are its output times `output`
/// and the slots times `sum`.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearStep {
    /// The slot of the present latents.
    pub latents: usize,
    /// What the network sees them multiplied with.
    pub scale: f32,
    /// [`Sampler::guidance_factor`]
    pub guidance: f32,
    /// The factor of the network's output.
    pub output: f32,
    /// A factor for every slot.
    pub sum: Vec<f32>,
    /// Whether fresh noise is drawn.
    pub draws: bool,
    /// Where that is put before the evaluation, if it is used.
    pub noise: Option<usize>,
    /// Where the output is put after it, if it is used again.
    pub keep: Option<usize>,
    /// Where the next latents are put after it.
    pub next: usize,
}

/// What belongs to an evaluation: vectors are numbered `3 * index + part`.
const LATENTS: usize = 0;
const OUTPUT: usize = 1;
const NOISE: usize = 2;

impl LinearSampler {
    /// Of a sampler that has not begun. `None` if its steps are not such sums, or of too many vectors.
    pub fn of(mut sampler: Sampler) -> Option<Self> {
        let count = sampler.timesteps().len();
        if !sampler.is_linear() {
            return None;
        }
        let unit = |at: usize| {
            let mut vector = vec![0.0; 3 * count];
            vector[at] = 1.0;
            vector
        };
        let mut sums = Vec::with_capacity(count);
        for index in 0..count {
            let mut drawn = 0;
            let mut noise = |_| {
                drawn += 1;
                unit(3 * index + NOISE)
            };
            let next = sampler.step(index, &unit(3 * index + OUTPUT), &unit(3 * index + LATENTS), &mut noise);
            if drawn > 1 {
                return None;
            }
            let terms: Vec<_> = next.into_iter().enumerate().filter(|(_, factor)| *factor != 0.0).collect();
            sums.push((terms, drawn > 0));
        }
        let scales: Vec<f32> = (0..count).map(|index| sampler.input_scale(index)).collect();
        let mut placed = Self::placed(&sums, &scales);
        for (index, step) in placed.steps.iter_mut().enumerate() {
            step.guidance = sampler.guidance_factor(index);
        }
        Some(placed).filter(|linear| linear.slots <= MOST_SLOTS)
    }

    /// The slot of the last latents.
    pub fn last(&self) -> usize {
        self.steps.last().map_or(0, |step| step.next)
    }

    /// The sums with a slot for every vector from where it is made to where it is last used.
    fn placed(sums: &[(Vec<(usize, f32)>, bool)], scales: &[f32]) -> Self {
        // The network sees the latents of every evaluation.
        let mut last: Vec<Option<usize>> =
            (0..3 * sums.len()).map(|vector| (vector % 3 == LATENTS).then_some(vector / 3)).collect();
        for (index, (terms, _)) in sums.iter().enumerate() {
            terms.iter().for_each(|(vector, _)| last[*vector] = Some(index));
        }
        let mut slots = Slots(Vec::new());
        slots.put(LATENTS);
        let mut steps = Vec::with_capacity(sums.len());
        for (index, (terms, draws)) in sums.iter().enumerate() {
            let [latents, output, noise] = [LATENTS, OUTPUT, NOISE].map(|part| 3 * index + part);
            let placed_noise = last[noise].map(|_| slots.put(noise));
            let mut sum = vec![0.0; slots.0.len()];
            for (vector, factor) in terms.iter().filter(|(vector, _)| *vector != output) {
                sum[slots.of(*vector)] = *factor;
            }
            let seen = slots.of(latents);
            slots.keep(|vector| last[vector] > Some(index));
            steps.push(LinearStep {
                latents: seen,
                scale: scales[index],
                guidance: 1.0,
                output: terms.iter().find(|(vector, _)| *vector == output).map_or(0.0, |(_, factor)| *factor),
                sum,
                draws: *draws,
                noise: placed_noise,
                keep: (last[output] > Some(index)).then(|| slots.put(output)),
                next: slots.put(latents + 3),
            });
        }
        let count = slots.0.len();
        steps.iter_mut().for_each(|step| step.sum.resize(count, 0.0));
        Self { slots: count, steps }
    }
}

/// Which vector each slot holds.
struct Slots(Vec<Option<usize>>);

impl Slots {
    fn put(&mut self, vector: usize) -> usize {
        let free = self.0.iter().position(Option::is_none).unwrap_or(self.0.len());
        self.0.resize(self.0.len().max(free + 1), None);
        self.0[free] = Some(vector);
        free
    }

    fn of(&self, vector: usize) -> usize {
        let place = self.0.iter().position(|held| *held == Some(vector));
        place.expect("a vector is kept from where it is made to where it is last used")
    }

    fn keep(&mut self, wanted: impl Fn(usize) -> bool) {
        self.0.iter_mut().for_each(|held| *held = held.filter(|vector| wanted(*vector)));
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, names, sampler};
    use super::*;
    use crate::rng::Generator;

    const SIZE: usize = 6;

    /// What a network might make of latents: no sum of them.
    fn network(latents: &[f32], scale: f32) -> Vec<f32> {
        latents.iter().enumerate().map(|(i, x)| (x * scale + i as f32).sin()).collect()
    }

    fn stepwise(mut sampler: Sampler, start: &[f32], mut noise: Generator) -> Vec<f32> {
        let mut latents = start.to_vec();
        for index in 0..sampler.timesteps().len() {
            let output = network(&latents, sampler.input_scale(index));
            latents = sampler.step(index, &output, &latents, &mut |n| noise.normal(n));
        }
        latents
    }

    fn by_sums(linear: &LinearSampler, start: &[f32], mut noise: Generator) -> Vec<f32> {
        let mut slots = vec![vec![f32::NAN; SIZE]; linear.slots];
        slots[0] = start.to_vec();
        for step in &linear.steps {
            let output = network(&slots[step.latents], step.scale);
            let drawn = step.draws.then(|| noise.normal(SIZE));
            if let Some((slot, drawn)) = step.noise.zip(drawn) {
                slots[slot] = drawn;
            }
            let mut next: Vec<f32> = output.iter().map(|v| v * step.output).collect();
            for (slot, factor) in slots.iter().zip(&step.sum).filter(|(_, factor)| **factor != 0.0) {
                next.iter_mut().zip(slot).for_each(|(next, v)| *next += factor * v);
            }
            if let Some(keep) = step.keep {
                slots[keep] = output;
            }
            slots[step.next] = next;
        }
        slots.swap_remove(linear.last())
    }

    /// Every sampler that takes such a configuration, by sums, against what its steps make.
    fn compared(config: &str, steps: usize) -> Vec<(&'static str, Option<f32>)> {
        let config = Config::from_json(config, "here").unwrap();
        let mut found = Vec::new();
        for name in names() {
            let Ok(fresh) = sampler(name, &config, steps) else { continue };
            let start: Vec<f32> = (0..SIZE).map(|i| (i as f32 - 2.5) * fresh.init_noise_sigma()).collect();
            let stepwise = stepwise(sampler(name, &config, steps).unwrap(), &start, Generator::new(5));
            let difference = LinearSampler::of(fresh).map(|linear| {
                assert!(linear.slots <= if name == "unipc" { 2 * steps } else { 10 }, "{name}: {}", linear.slots);
                let by_sums = by_sums(&linear, &start, Generator::new(5));
                let most = stepwise.iter().fold(0f32, |most, v| most.max(v.abs()));
                by_sums.iter().zip(&stepwise).map(|(a, b)| (a - b).abs() / most).fold(0.0, f32::max)
            });
            found.push((name, difference));
        }
        found
    }

    const STABLE_DIFFUSION: &str = r#""beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012,
        "skip_prk_steps": true, "set_alpha_to_one": false, "steps_offset": 1"#;

    #[test]
    fn the_sums_end_where_the_steps_do() {
        for more in [
            r#""clip_sample": false"#,
            r#""clip_sample": false, "prediction_type": "v_prediction", "timestep_spacing": "trailing""#,
            r#""clip_sample": false, "use_karras_sigmas": true, "skip_prk_steps": false"#,
            r#""clip_sample": false, "solver_order": 3"#,
        ] {
            for steps in [1, 4, 20] {
                for (name, difference) in compared(&format!("{{{STABLE_DIFFUSION}, {more}}}"), steps) {
                    let difference = difference.unwrap_or_else(|| panic!("{name} is not linear: {more}"));
                    assert!(difference < 2e-5, "{name}, {steps} steps, {more}: {difference}");
                }
            }
        }
    }

    #[test]
    fn a_sampler_that_limits_the_picture_is_not_linear_or_does_not_look_at_it() {
        for more in [r#""clip_sample": true, "clip_sample_range": 0.1"#, r#""thresholding": true"#] {
            let found = compared(&format!("{{{STABLE_DIFFUSION}, {more}}}"), 10);
            assert!(found.iter().any(|(_, difference)| difference.is_none()));
            for (name, difference) in found {
                assert!(difference.is_none_or(|difference| difference < 2e-5), "{name}, {more}: {difference:?}");
            }
        }
    }

    #[test]
    fn a_sampler_that_remembers_too_much_is_not_made_of_sums() {
        let config = Config::from_json("{}", "here").unwrap();
        assert!(LinearSampler::of(sampler("unipc", &config, 100).unwrap()).is_none());
    }

    #[test]
    fn a_sampler_without_memory_takes_one_slot() {
        let config = Config::from_json(&format!("{{{STABLE_DIFFUSION}, \"clip_sample\": false}}"), "here").unwrap();
        let linear = LinearSampler::of(sampler("ddim", &config, 5).unwrap()).unwrap();
        assert_eq!(linear.slots, 1);
        assert!(linear.steps.iter().all(|step| step.keep.is_none() && step.noise.is_none() && !step.draws));
    }
}
