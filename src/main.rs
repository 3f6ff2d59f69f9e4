//! The `ornstein` binary: everything is in the library's `cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    without_a_desktop_do_not_ask_it();
    ornstein::cli::run()
}

/// Mesa's Vulkan layer that lets a desktop choose the default adapter complains on stderr, several times, where there
/// is not a desktop session. It has nothing to choose there, so it is switched off, unless the user steers it.
fn without_a_desktop_do_not_ask_it() {
    let unset = |name: &str| std::env::var_os(name).is_none();
    if unset("XDG_RUNTIME_DIR") && unset("MESA_VK_DEVICE_SELECT") {
        // SAFETY: `main` has started no thread yet, so nobody reads the environment meanwhile.
        unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    }
}
