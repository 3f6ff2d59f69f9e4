//! What samplers are called: by this program, by diffusers' classes, and by web UIs and other programs, which add how
//! the sigmas are spread: `DPM++ 2M Karras`, `dpmpp_2m`, `k_euler_a`.

use super::sigmas::Sigmas;
use super::table::{Row, TABLE, names};
use crate::error::{Error, Result, instead};

/// The name in [`names`] of a sampler that may be called otherwise, and the sigmas that its name asks for.
///
/// # Errors
/// If no sampler is called so, or it has no such sigmas.
pub fn called(text: &str) -> Result<(&'static str, Option<Sigmas>)> {
    let wanted = plain(text);
    let ends_in = |sigmas: &Sigmas| wanted.strip_suffix(&plain(sigmas.name())).is_some_and(|rest| !rest.is_empty());
    let sigmas = Sigmas::NAMED.into_iter().find(ends_in);
    let wanted = sigmas.as_ref().map_or(&*wanted, |sigmas| wanted.trim_end_matches(&plain(sigmas.name())));
    let wanted = wanted.strip_suffix("ancestral").map_or(wanted.into(), |rest| format!("{rest}a"));
    let bare = wanted.strip_prefix('k').or(wanted.strip_prefix("sample")).unwrap_or(&wanted);
    let is_called = |row: &&Row| {
        let class = row.class.into_iter().flat_map(|class| [class, class.trim_end_matches("Scheduler")]);
        class.chain([row.name, row.web_ui]).any(|name| [&*wanted, bare].contains(&&*plain(name)))
    };
    let row = TABLE
        .iter()
        .find(is_called)
        .ok_or_else(|| Error::usage(format!("no sampler is called {text:?}; {}", instead(text, names()))))?;
    if let Some(sigmas) = &sigmas {
        check_spread(row, sigmas).map_err(|why| Error::usage(format!("{text}: {why}")))?;
    }
    Ok((row.name, sigmas))
}

/// Whether a sampler's sigmas can be spread so; why not.
pub(super) fn check_spread(row: &Row, sigmas: &Sigmas) -> Result<(), String> {
    if row.spreads {
        return Ok(());
    }
    let takers: Vec<_> = TABLE.iter().filter(|row| row.spreads).map(|row| row.name).collect();
    Err(format!("{} has no {} sigmas; those have: {}", row.name, sigmas.name(), takers.join(", ")))
}

/// A name without what programs write differently.
fn plain(name: &str) -> String {
    let name = name.to_lowercase().replace('+', "p");
    name.chars().filter(|c| c.is_alphanumeric()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samplers::Config;
    use crate::samplers::betas::Training;

    #[test]
    fn every_program_means_the_same_sampler() {
        for (names, name) in [
            (&["Euler a", "euler_a", "k_euler_a", "euler_ancestral", "EulerAncestralDiscreteScheduler"][..], "euler-a"),
            (&["Euler", "EULER", "k_euler", "sample_euler", "EulerDiscrete"], "euler"),
            (&["DPM++ 2M", "dpmpp_2m", "k_dpmpp_2m", "dpm++2m", "DPMSolverMultistepScheduler"], "dpm++2m"),
            (&["DPM++ 2M SDE", "dpmpp_2m_sde"], "dpm++2m-sde"),
            (&["DPM2", "dpm_2", "k_dpm_2"], "dpm2"),
            (&["DPM2 a", "dpm_2_ancestral", "k_dpm_2_a"], "dpm2-a"),
            (&["PLMS", "plms", "pndm"], "pndm"),
            (&["UniPC", "uni_pc"], "unipc"),
            (&["LMS", "k_lms"], "lms"),
            (&["DPM++ SDE", "dpmpp_sde", "k_dpmpp_sde", "sample_dpmpp_sde", "DPMSolverSDEScheduler"], "dpm++sde"),
            (&["DPM++ 3M SDE", "dpmpp_3m_sde", "dpm++3m_sde", "k_dpmpp_3m_sde"], "dpm++3m-sde"),
            (&["IPNDM", "ipndm", "sample_ipndm"], "ipndm"),
            (&["Res Multistep", "res_multistep", "k_res_multistep"], "res-multistep"),
            (&["ER SDE", "er_sde", "sample_er_sde"], "er-sde"),
            (&["Euler CFG++", "euler_cfg_pp", "euler_cfg++", "k_euler_cfg_pp"], "euler-cfg++"),
        ] {
            for text in names {
                assert_eq!(called(text).unwrap(), (name, None), "{text}");
            }
        }
    }

    #[test]
    fn what_pictures_written_here_say_is_understood() {
        for row in TABLE {
            assert_eq!(called(row.web_ui).unwrap().0, row.name);
            assert_eq!(called(row.name).unwrap().0, row.name);
        }
    }

    #[test]
    fn a_name_says_how_sigmas_are_spread() {
        assert_eq!(called("DPM++ 2M Karras").unwrap(), ("dpm++2m", Some(Sigmas::Karras)));
        assert_eq!(called("euler_exponential").unwrap(), ("euler", Some(Sigmas::Exponential)));
        assert_eq!(called("DPM++ 3M SDE Karras").unwrap(), ("dpm++3m-sde", Some(Sigmas::Karras)));
        for text in ["karras", "", "k", "Euler b", "DPM++ 4M SDE"] {
            assert!(called(text).is_err(), "{text}");
        }
        let error = called("DDIM Karras").unwrap_err().to_string();
        assert!(error.starts_with("DDIM Karras: ddim has no Karras sigmas; those have: lms, "), "{error}");
    }

    #[test]
    fn a_sampler_has_spread_sigmas_where_they_change_what_it_does() {
        for row in TABLE {
            let with = |sigmas: Option<Sigmas>| {
                let text = r#"{"beta_start": 0.00085, "beta_end": 0.012}"#;
                let config = Config::from_json(text, "x").unwrap().with_sigmas(sigmas);
                let sampler = (row.build)(&config, &Training::new(&config, row.defaults).unwrap(), 7).unwrap();
                (sampler.timesteps().to_vec(), sampler.sigmas().map(<[f32]>::to_vec))
            };
            for sigmas in Sigmas::NAMED {
                assert_eq!(with(Some(sigmas.clone())) != with(None), row.spreads, "{} {sigmas:?}", row.name);
            }
        }
    }
}
