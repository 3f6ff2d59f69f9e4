//! A device with its kernels, and which of them may be used.

use std::ops::Deref;
use std::sync::Arc;

use super::adapter::Adapter;
use super::admission::Admission;
use super::context::Context;
use super::kernels::Kernels;
use super::lanes;
use super::shader::Sources;
use crate::error::Result;

/// An opened device with its kernels. It is its [`Context`] too, which is all that making a kernel takes.
#[derive(Debug)]
pub struct Gpu {
    pub(super) adapter: wgpu::Adapter,
    /// The device and its queue.
    pub context: Context,
    /// What was compiled for it.
    pub kernels: Kernels,
    /// Which kernels it gets right.
    pub admission: Admission,
}

impl Gpu {
    /// Opens a device, as [`Context::open`] does, and counts the lanes of its subgroups.
    ///
    /// # Errors
    /// If the driver refuses.
    pub async fn open(adapter: &Adapter, sources: Sources) -> Result<Arc<Self>> {
        let mut context = Context::open(adapter, sources).await?;
        context.caps.lanes = lanes::counted(&context).await;
        Ok(Arc::new(Self {
            adapter: adapter.inner.clone(),
            context,
            kernels: Kernels::default(),
            admission: Admission::default(),
        }))
    }
}

impl Deref for Gpu {
    type Target = Context;

    fn deref(&self) -> &Context {
        &self.context
    }
}
