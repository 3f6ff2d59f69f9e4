//! Asking a driver for a device. Some drivers announce features that they then refuse; wgpu-hal calls that a bug of its
//! caller's, and panics.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use super::adapter::Adapter;
use crate::caps::Caps;
use crate::error::{Error, Field, Remedy, Result};

/// What a device is asked for where its adapter announces it, the most useful first.
const WANTED: [(wgpu::Features, &str); 6] = [
    (wgpu::Features::SHADER_F16, "f16"),
    (wgpu::Features::SUBGROUP, "subgroups"),
    (wgpu::Features::PASSTHROUGH_SHADERS, "SPIR-V past wgpu"),
    (wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX, "cooperative matrices"),
    (wgpu::Features::TIMESTAMP_QUERY, "timestamps"),
    (wgpu::Features::PIPELINE_CACHE, "a cache of compiled kernels"),
];

/// What a driver gave.
pub(super) struct Opened {
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    /// The adapter's, less what the driver refused.
    pub caps: Caps,
    /// What the adapter announces and the driver refused.
    pub without: Vec<String>,
}

/// Opens a device with all of the adapter's limits, and with as many features as its driver gives. Those in `without`
/// are known to be refused.
pub(super) async fn open(adapter: &Adapter, without: &[String]) -> Result<Opened> {
    let announced = WANTED.iter().filter(|(feature, _)| adapter.inner.features().contains(*feature));
    let known = |name: &str| without.iter().any(|known| known == name);
    let wanted =
        announced.clone().filter(|(_, name)| !known(name)).fold(wgpu::Features::empty(), |all, (f, _)| all | *f);
    let mut opened = ask(adapter, wanted).await;
    if opened.is_err() {
        opened = with_the_most(adapter, announced.clone().map(|(feature, _)| *feature)).await;
    }
    let (device, queue) = opened.map_err(|what| {
        let what = format!("{} could not be opened: {what}; update its driver", adapter.caps.name);
        Error::device(what).remedies([Remedy::Other(Field::Device)])
    })?;
    let refused = announced.filter(|(feature, _)| !device.features().contains(*feature));
    let without = refused.map(|(_, name)| name.to_string()).collect();
    Ok(Opened { caps: caps_with(adapter.caps.clone(), device.features()), device, queue, without })
}

/// Adds one feature after the other to none, and leaves out those with which the driver refuses.
async fn with_the_most(
    adapter: &Adapter,
    features: impl Iterator<Item = wgpu::Features>,
) -> Result<(wgpu::Device, wgpu::Queue), String> {
    let mut given = wgpu::Features::empty();
    let mut opened = ask(adapter, given).await?;
    for feature in features {
        if let Ok(more) = ask(adapter, given | feature).await {
            (opened, given) = (more, given | feature);
        }
    }
    Ok(opened)
}

/// The device with these features, or what is in the way.
async fn ask(adapter: &Adapter, features: wgpu::Features) -> Result<(wgpu::Device, wgpu::Queue), String> {
    let descriptor = wgpu::DeviceDescriptor {
        label: Some("ornstein"),
        required_features: features,
        required_limits: adapter.inner.limits(),
        experimental_features: experimental(features),
        ..Default::default()
    };
    // The request is made by the call itself, except in browsers, which do not panic.
    let asked = caught(|| adapter.inner.request_device(&descriptor))?;
    asked.await.map_err(|e| e.to_string())
}

thread_local! {
    /// Whether a panic of this thread is expected, and will be reported as an error.
    static EXPECTED: Cell<bool> = const { Cell::new(false) };
}

/// What `work` gives, or the message of its panic, which is not printed.
fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    // Stays for good, and hides nothing of other threads.
    HOOK.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !EXPECTED.get() {
                print(info);
            }
        }));
    });
    EXPECTED.set(true);
    // That the closure is safe to unwind: wgpu calls the driver with no lock held and nothing half-changed. A panic
    // leaves two numbers unused that were reserved for the device and its queue, and the adapter as it was.
    let done = panic::catch_unwind(AssertUnwindSafe(work));
    EXPECTED.set(false);
    done.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref().copied());
        text.unwrap_or("its driver failed").to_string()
    })
}

/// What is left of an adapter's abilities with these features.
fn caps_with(mut caps: Caps, features: wgpu::Features) -> Caps {
    caps.f16 &= features.contains(wgpu::Features::SHADER_F16);
    caps.timestamps &= features.contains(wgpu::Features::TIMESTAMP_QUERY);
    caps.subgroups = caps.subgroups.filter(|_| features.contains(wgpu::Features::SUBGROUP));
    if !features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX) {
        caps.coop_matrix.clear();
    }
    caps
}

/// The leave to use features that wgpu calls experimental, for a device that has one.
fn experimental(features: wgpu::Features) -> wgpu::ExperimentalFeatures {
    if !features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX) {
        return wgpu::ExperimentalFeatures::disabled();
    }
    // SAFETY: wgpu asks for an acknowledgement that such a feature may have undefined behaviour that wgpu does not
    // find. What is known of cooperative matrices: a load or store of a matrix is not checked against the end of its
    // array. They are in `cores/gemm_coop.wgsl` and `cores/attention_coop.wgsl` alone, in workgroup memory, at places
    // that follow from the constants that its arrays are sized by, and a launch is only made where these fit the
    // device (`ops::product::gemm`, `ops::attention`). And naga's barriers leave it to the driver to make workgroup
    // memory visible (gfx-rs/wgpu#8805): a wrong result, not a wrong place, and mended in `shader::visible`. For a
    // user's own files neither holds: `docs/kernels.md` says so.
    unsafe { wgpu::ExperimentalFeatures::enabled() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_its_message() {
        assert_eq!(caught(|| 1), Ok(1));
        assert_eq!(caught(|| panic!("refused")), Err::<(), _>("refused".into()));
        assert_eq!(caught(|| panic!("{} refused", 2)), Err::<(), _>("2 refused".into()));
    }

    #[test]
    fn what_a_device_was_opened_without_it_cannot_do() {
        let all = Caps { f16: true, timestamps: true, subgroups: Some([8, 8]), ..Caps::webgpu_default() };
        let caps = caps_with(all.clone(), wgpu::Features::SUBGROUP);
        assert_eq!(caps, Caps { f16: false, timestamps: false, coop_matrix: Vec::new(), ..all });
    }
}
