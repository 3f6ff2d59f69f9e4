//! Prompts that change from step to step: the texts of each version that they have, and when it is drawn by.

use crate::conditioning::Syntax;
use crate::prompt::schedule::{at, schedule};
use crate::samplers::Sampler;

/// The steps of a sampler among all that a picture takes.
pub(super) struct Clock {
    /// That of each evaluation, from 0.
    steps: Vec<usize>,
    all: usize,
}

/// What is read of some prompts.
#[derive(Debug, PartialEq)]
pub(super) struct Versions {
    /// The texts of each, one for each prompt.
    pub texts: Vec<Vec<String>>,
    /// Which of these each evaluation is given.
    pub at: Vec<usize>,
}

impl Clock {
    /// Of a sampler that is not the first if steps are done `before`.
    pub fn of(sampler: &Sampler, before: usize, all: usize) -> Self {
        let evaluations = 0..sampler.timesteps().len();
        Self { steps: evaluations.map(|done| before + sampler.steps_done(done)).collect(), all }
    }

    /// The versions of these prompts that it meets.
    pub fn versions(&self, prompts: &[&str], syntax: Syntax) -> Versions {
        let read = |prompt: &&str| match syntax {
            Syntax::Plain => vec![(self.all, prompt.to_string())],
            Syntax::Weighted => schedule(prompt, self.all),
        };
        let schedules: Vec<_> = prompts.iter().map(read).collect();
        let mut texts: Vec<Vec<String>> = Vec::new();
        let mut version = |step: &usize| {
            let now: Vec<_> = schedules.iter().map(|schedule| &schedule[at(schedule, *step)].1).collect();
            texts.iter().position(|known| known.iter().eq(now.iter().copied())).unwrap_or_else(|| {
                texts.push(now.into_iter().cloned().collect());
                texts.len() - 1
            })
        };
        let at = self.steps.iter().map(&mut version).collect();
        Versions { texts, at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samplers::{Config, sampler};

    fn versions(name: &str, prompts: &[&str]) -> (Vec<String>, Vec<usize>) {
        let sampler = sampler(name, &Config::default(), 4).unwrap();
        let Versions { texts, at } = Clock::of(&sampler, 0, 4).versions(prompts, Syntax::Weighted);
        (texts.into_iter().map(|texts| texts.join("/")).collect(), at)
    }

    #[test]
    fn each_pair_of_texts_is_a_version_once() {
        assert_eq!(versions("euler", &["n", "[a|b]"]), (vec!["n/a".into(), "n/b".into()], vec![0, 0, 1, 0]));
        let wanted = vec!["n/a".into(), "/a".into(), "/b".into()];
        assert_eq!(versions("euler", &["[n::1]", "[a:b:2]"]), (wanted, vec![0, 0, 1, 2]));
    }

    #[test]
    fn both_evaluations_of_a_step_have_its_version() {
        assert_eq!(versions("heun", &["[a:b:1]"]).1, [0, 0, 0, 0, 1, 1, 1]);
    }

    #[test]
    fn a_second_sampler_goes_on_where_the_first_ends() {
        let sampler = sampler("euler", &Config::default(), 2).unwrap();
        let versions = |syntax| Clock::of(&sampler, 2, 4).versions(&["[a:b:0.5]"], syntax);
        assert_eq!(versions(Syntax::Weighted).at, [0, 1]);
        let plain = Versions { texts: vec![vec!["[a:b:0.5]".into()]], at: vec![0, 0] };
        assert_eq!(versions(Syntax::Plain), plain);
    }
}
