//! What the driver compiled, kept on disk from one run to the next where the backend can (Vulkan).

use std::path::PathBuf;
use std::sync::Mutex;

use super::store::{Store, hash};
use crate::cache;
use crate::caps::Caps;
use crate::files::{DATA, read};

/// Bytes in front of the driver's data: a hash of it.
const HEADER: usize = size_of::<u64>();

/// The driver's cache of compiled kernels.
#[derive(Debug)]
pub(super) struct Pipelines {
    /// None where the backend has none.
    cache: Option<wgpu::PipelineCache>,
    path: Option<PathBuf>,
    /// Bytes of the driver's data that are on disk.
    kept: Mutex<usize>,
}

impl Pipelines {
    /// With what an earlier run kept for this adapter and driver.
    pub fn open(device: &wgpu::Device, caps: &Caps) -> Self {
        let path = Store::of(caps).map(|store| store.file("pipelines"));
        let data = path.as_ref().and_then(|path| read(path, DATA).ok()).and_then(whole);
        let kept = Mutex::new(data.as_ref().map_or(0, Vec::len));
        let label = Some("kernels");
        let cache = device.features().contains(wgpu::Features::PIPELINE_CACHE).then(|| {
            let descriptor = wgpu::PipelineCacheDescriptor { label, data: data.as_deref(), fallback: true };
            // SAFETY: the data came from `PipelineCache::get_data`: `save` alone writes the file, the hash in front of
            // it shows that it is whole, and wgpu checks by its own header that it is this adapter's and driver's.
            unsafe { device.create_pipeline_cache(&descriptor) }
        });
        Self { cache, path, kept }
    }

    pub fn get(&self) -> Option<&wgpu::PipelineCache> {
        self.cache.as_ref()
    }

    /// Keeps what the driver compiled since.
    pub fn save(&self) {
        let data = self.cache.as_ref().and_then(wgpu::PipelineCache::get_data);
        let (Some(data), Some(path)) = (data, &self.path) else { return };
        let mut kept = self.kept.lock().unwrap_or_else(|e| e.into_inner());
        if *kept != data.len() && cache::keep(path, &[&hash(&data).to_le_bytes(), data.as_slice()].concat()) {
            *kept = data.len();
        }
    }
}

/// A file's data, if its hash is right.
fn whole(file: Vec<u8>) -> Option<Vec<u8>> {
    let (header, data) = file.split_at_checked(HEADER)?;
    let data = data.to_vec();
    (header == hash(&data).to_le_bytes()).then_some(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_with_a_wrong_hash_is_not_given_to_the_driver() {
        let data = vec![1u8, 2, 3];
        let mut file = [hash(&data).to_le_bytes().as_slice(), &data].concat();
        assert_eq!(whole(file.clone()), Some(data));
        file[HEADER] ^= 1;
        assert_eq!(whole(file), None);
        assert_eq!(whole(vec![0; 3]), None);
    }
}
