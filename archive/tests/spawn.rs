//! Every call can be made from a spawned task: this compiles, or it does not.

mod common;

use archive::{Archive, Item, Level, PointEntry, SealRequest, SequentialReader, Session, TakeId};
use archive::{PointReader, StreamReader, StreamWriter, Take};

fn sendable<T: Send>(_: T) {}

#[allow(dead_code, reason = "it is compiled, not run")]
fn archives(archive: &'static Archive, key: &'static archive::Key) {
    sendable(Archive::open_dir("", key));
    sendable(Archive::create_dir("", key));
    sendable(Archive::open_or_create_dir("", key));
    sendable(archive.item(""));
    sendable(archive.find_item(""));
    sendable(archive.items());
}

#[allow(dead_code, reason = "it is compiled, not run")]
fn items(item: &'static Item, take: Take, point: &'static PointEntry, id: &'static TakeId) {
    sendable(item.begin(take));
    sendable(item.seal(SealRequest::new("", common::EPOCH, 0)));
    sendable(item.points());
    sendable(item.listing());
    sendable(item.read(point));
    sendable(item.verify(point, Level::Full));
    sendable(item.holds());
    sendable(item.release(id));
}

#[allow(dead_code, reason = "it is compiled, not run")]
fn writers(session: &'static Session, one: &'static mut StreamWriter, other: StreamWriter) {
    sendable(session.seal(SealRequest::new("", common::EPOCH, 0)));
    sendable(one.write(bytes::Bytes::new()));
    sendable(other.finish());
}

#[allow(dead_code, reason = "it is compiled, not run")]
fn readers(
    point: &'static PointReader,
    stream: &'static StreamReader,
    sequential: &'static mut SequentialReader,
) {
    sendable(point.verify_present());
    sendable(stream.read_at(0, 0));
    sendable(sequential.next_chunk());
}
