//! Files in object storage: upload in parts, serve a range, find what lies in the wrong region.
//!
//! Runs against a folder (the local file system as a bucket) and the in-memory store of the `object_store` crate; the same
//! code takes its S3, Azure and Google clients.
//!
//!     cargo run --example object_store

use std::error::Error;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, WriteMultipart};
use strongroom::{
    ErrorKind, FileHead, LocalKms, MemoryKeyStore, RangeSource, Region, ScopeHandle, Strongroom, TenantPolicy,
};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const REGION: &str = "eu-central-1";

/// One object of a bucket, as strongroom fetches ranges of it.
struct Object {
    bucket: Arc<dyn ObjectStore>,
    at: Path,
}

#[async_trait]
impl RangeSource for Object {
    async fn fetch(&self, range: Range<u64>) -> strongroom::Result<Bytes> {
        self.bucket.get_range(&self.at, range).await.map_err(|e| match e {
            object_store::Error::NotFound { .. } => {
                strongroom::Error::new(ErrorKind::Io, "no such object").with_source(e)
            }
            e => strongroom::Error::new(ErrorKind::Unavailable, "the bucket did not answer; retry").with_source(e),
        })
    }
}

/// Seals a body as it comes in, and uploads it in parts of 5 MiB (the least that S3 takes), a few at a time.
async fn upload<S>(bucket: &Arc<dyn ObjectStore>, at: &Path, scope: &ScopeHandle, file: &str, body: S) -> Outcome<()>
where
    S: stream::Stream<Item = Result<Bytes, std::io::Error>> + Unpin,
{
    let mut sealed = scope.file_sealer(&[("file", file)]).await?.stream(body);
    let mut upload = WriteMultipart::new_with_chunk_size(bucket.put_multipart(at).await?, 5 << 20);
    while let Some(piece) = sealed.next().await {
        match piece {
            Ok(piece) => {
                upload.wait_for_capacity(4).await?;
                upload.put(piece);
            }
            // Without this the bucket would keep the parts.
            Err(e) => {
                upload.abort().await?;
                return Err(e.into());
            }
        }
    }
    upload.finish().await?;
    Ok(())
}

/// What an HTTP server answers a `Range` request with: fetches the head, and then no more than the range needs.
async fn serve_range(
    bucket: &Arc<dyn ObjectStore>,
    at: &Path,
    scope: &ScopeHandle,
    file: &str,
    range: Range<u64>,
) -> Outcome<Vec<Bytes>> {
    let sealed_len = bucket.head(at).await?.size;
    let object = Object { bucket: Arc::clone(bucket), at: at.clone() };
    let head = FileHead::fetch_from(&object, sealed_len).await?;
    let reader = scope.file_opener(&[("file", file)], &head).await?.ranges(object, sealed_len)?;
    Ok(reader.stream(range.start, range.end - range.start).try_collect().await?)
}

/// Every object that is no sealed file, or one of another region than the bucket's, by reading heads alone: no key is
/// needed. Heads are not authenticated; this finds mistakes, not attackers.
async fn misplaced(bucket: &Arc<dyn ObjectStore>, region: &str) -> Outcome<Vec<(Path, String)>> {
    let heads = bucket.list(None).map_err(Box::from).map_ok(|object| async move {
        let bytes = bucket.get_range(&object.location, 0..object.size.min(FileHead::MAX_LEN as u64)).await?;
        Ok::<_, Box<dyn Error + Send + Sync>>((object.location, FileHead::parse(&bytes)))
    });
    let heads: Vec<_> = heads.try_buffer_unordered(16).try_collect().await?;
    let mut found: Vec<(Path, String)> = heads
        .into_iter()
        .filter_map(|(at, head)| match head {
            Ok(head) if head.header().region() == region => None,
            Ok(head) => Some((at, format!("belongs to {}", head.header().region()))),
            Err(e) => Some((at, e.to_string())),
        })
        .collect();
    found.sort();
    Ok(found)
}

/// A scope of an enrolled tenant, whose keys live in `region`.
async fn scope(region: &str) -> Outcome<ScopeHandle> {
    let kms = LocalKms::in_memory();
    let region = Region::new(region)?;
    let kek = kms.create_kek("acme", region.clone())?;
    let room = Strongroom::builder()
        .serving([region.as_str()])
        .key_store(MemoryKeyStore::default())
        .kms(kms)
        .trusting_the_key_store()
        .build()
        .await?;
    room.admin("ops@example.com", "an example")?
        .enroll("acme", TenantPolicy::new(kek, region).scope_by(["channel"]).bind_files(["file"]))
        .await?;
    Ok(room.tenant("acme").await?.scope([("channel", "C9")])?)
}

async fn run(bucket: Arc<dyn ObjectStore>) -> Outcome<()> {
    let (home, abroad) = (scope(REGION).await?, scope("us-east-1").await?);
    let video: Vec<u8> = (0..12_000_000_u32).flat_map(u32::to_le_bytes).take(20 << 20).collect();
    let body = || stream::iter(video.chunks(100_000).map(|piece| Ok(Bytes::copy_from_slice(piece))));

    let at = Path::from("uploads/video");
    upload(&bucket, &at, &home, "F1", body()).await?;
    println!("{bucket}: uploaded {} bytes as {}", video.len(), bucket.head(&at).await?.size);

    let got = serve_range(&bucket, &at, &home, "F1", 9_000_000..9_065_536).await?.concat();
    if video.get(9_000_000..9_065_536) != Some(&*got) {
        return Err("a range came back wrong".into());
    }
    println!("{bucket}: served 64 KiB from the middle");

    upload(&bucket, &Path::from("uploads/stray"), &abroad, "F2", body()).await?;
    bucket.put(&Path::from("uploads/plain.txt"), Bytes::from_static(b"never sealed").into()).await?;
    let found = misplaced(&bucket, REGION).await?;
    for (at, why) in &found {
        println!("{bucket}: {at}: {why}");
    }
    if found.len() == 2 { Ok(()) } else { Err("misplaced objects were overlooked".into()) }
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    run(Arc::new(InMemory::new())).await?;
    run(Arc::new(LocalFileSystem::new_with_prefix(folder.path())?)).await
}
