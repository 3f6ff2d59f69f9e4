//! A device with its kernels, and which of them may be used.

use std::ops::Deref;
use std::sync::Arc;

use super::adapter::Adapter;
use super::context::Context;
use super::kernels::Kernels;
use super::lanes;
use super::ledger::Ledger;
use super::shader::Sources;
use super::verdicts::Id;
use crate::error::{Result, Tell, ten};

/// An opened device with its kernels. It is its [`Context`] too, which is all that making a kernel takes.
#[derive(Debug)]
pub struct Gpu {
    /// What was opened.
    pub adapter: Adapter,
    /// The device and its queue.
    pub context: Context,
    /// What was compiled for it.
    pub kernels: Kernels,
    /// Which kernels it gets right.
    pub ledger: Ledger,
}

impl Gpu {
    /// Opens a device, as [`Context::open`] does, and counts the lanes of its subgroups. `tell` is called, once each,
    /// with what its driver announces but refuses, and of kernels that an earlier run did not survive.
    ///
    /// # Errors
    /// If the driver refuses.
    pub async fn open(adapter: &Adapter, sources: Sources, tell: &mut Tell<'_>) -> Result<Arc<Self>> {
        let ledger = Ledger::open(&adapter.caps, &sources, tell);
        let known = ledger.without();
        let mut context = Context::open(adapter, sources, &known).await?;
        if context.without != known {
            ledger.open_without(&context.without);
            if !context.without.is_empty() {
                let (name, refused) = (&context.caps.name, ten(&context.without));
                tell(&format!("{name} announces {refused}, but its driver refuses that: it is used without"));
            }
        }
        let counting = Id::alone("lanes", "the kernel that counts a subgroup's lanes");
        if context.caps.subgroups.is_some_and(|[least, most]| least < most)
            && let Ok(_note) = ledger.note(vec![counting.clone()])
        {
            context.caps.lanes = lanes::counted(&context).await;
            ledger.judge(&counting, None);
        }
        Ok(Arc::new(Self { adapter: adapter.clone(), context, kernels: Kernels::default(), ledger }))
    }
}

impl Deref for Gpu {
    type Target = Context;

    fn deref(&self) -> &Context {
        &self.context
    }
}
