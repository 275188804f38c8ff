//! [`Store`]: the objects, their resource versions, and the recent changes that watches are served from.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::sync::watch;
use uuid::Uuid;

use super::{
    resource::{KINDS, ResourceKind},
    status::Status,
};

/// How many changes a late watcher can still catch up on; older ones are a 410, which tests can so provoke.
const MAX_CHANGES: usize = 1_000;

/// All objects of the cluster.
pub(super) struct Store {
    content: Mutex<Content>,
    /// The latest resource version; watches wait on it.
    latest: watch::Sender<u64>,
}

#[derive(Default)]
struct Content {
    objects: BTreeMap<Key, Arc<Value>>,
    version: u64,
    changes: VecDeque<Change>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    group: &'static str,
    plural: &'static str,
    namespace: String,
    name: String,
}

impl Key {
    fn new(resource: &'static ResourceKind, namespace: &str, name: &str) -> Self {
        Self {
            group: resource.group,
            plural: resource.plural,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }
}

/// One change of one object.
#[derive(Clone)]
pub(super) struct Change {
    pub(super) version: u64,
    pub(super) resource: &'static ResourceKind,
    pub(super) namespace: String,
    /// The object before; `None` when it was created.
    pub(super) before: Option<Arc<Value>>,
    /// The object after; `None` when it was deleted.
    pub(super) after: Option<Arc<Value>>,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            content: Mutex::default(),
            latest: watch::Sender::new(0),
        }
    }
}

impl Store {
    /// The objects of a kind, in one namespace or (empty) in all, and the version that this is the state of.
    pub(super) fn list(
        &self,
        resource: &'static ResourceKind,
        namespace: &str,
    ) -> (Vec<Arc<Value>>, u64) {
        let content = self.lock();
        let first = Key::new(resource, namespace, "");
        let objects = content
            .objects
            .range((Bound::Included(first), Bound::Unbounded))
            .take_while(|(key, _)| key.group == resource.group && key.plural == resource.plural)
            .filter(|(key, _)| namespace.is_empty() || key.namespace == namespace)
            .map(|(_, object)| Arc::clone(object))
            .collect();
        (objects, content.version)
    }

    pub(super) fn find(
        &self,
        resource: &'static ResourceKind,
        namespace: &str,
        name: &str,
    ) -> Option<Arc<Value>> {
        let key = Key::new(resource, namespace, name);
        self.lock().objects.get(&key).cloned()
    }

    pub(super) fn require(
        &self,
        resource: &'static ResourceKind,
        namespace: &str,
        name: &str,
    ) -> Result<Arc<Value>, Status> {
        self.find(resource, namespace, name)
            .ok_or_else(|| Status::not_found(resource.plural, name))
    }

    /// Adds an object; fills in what the server owns.
    pub(super) fn create(
        &self,
        resource: &'static ResourceKind,
        namespace: &str,
        mut object: Value,
    ) -> Result<Arc<Value>, Status> {
        if !object.is_object() {
            return Err(Status::bad_request("the object is not a JSON object"));
        }
        if !object["metadata"].is_object() {
            object["metadata"] = json!({});
        }
        object["kind"] = json!(resource.kind);
        object["apiVersion"] = json!(resource.api_version());
        let metadata = &mut object["metadata"];
        let name = match (metadata["name"].as_str(), metadata["generateName"].as_str()) {
            (Some(name), _) if !name.is_empty() => name.to_owned(),
            (_, Some(prefix)) => format!("{prefix}{}", &Uuid::new_v4().simple().to_string()[..5]),
            _ => return Err(Status::bad_request("name or generateName is required")),
        };
        metadata["name"] = json!(name);
        if resource.is_namespaced() {
            metadata["namespace"] = json!(namespace);
        }
        metadata["uid"] = json!(Uuid::new_v4().to_string());
        metadata["creationTimestamp"] = json!(now());

        let mut content = self.lock();
        let key = Key::new(resource, namespace, &name);
        if content.objects.contains_key(&key) {
            return Err(Status::already_exists(resource.plural, &name));
        }
        let object = content.commit(resource, key, None, object);
        self.announce(content);
        Ok(object)
    }

    /// Replaces an object by what `change` makes of it, atomically. A result that is the same is no change.
    pub(super) fn update(
        &self,
        resource: &'static ResourceKind,
        namespace: &str,
        name: &str,
        change: impl FnOnce(&Value) -> Result<Value, Status>,
    ) -> Result<Arc<Value>, Status> {
        let mut content = self.lock();
        let key = Key::new(resource, namespace, name);
        let Some(before) = content.objects.get(&key).cloned() else {
            return Err(Status::not_found(resource.plural, name));
        };
        let mut after = change(&before)?;
        if !after["metadata"].is_object() {
            return Err(Status::bad_request("metadata is missing"));
        }
        let asked = &after["metadata"]["resourceVersion"];
        if asked.is_string() && *asked != before["metadata"]["resourceVersion"] {
            return Err(Status::conflict(resource.plural, name));
        }
        for owned in [
            "name",
            "namespace",
            "uid",
            "creationTimestamp",
            "resourceVersion",
        ] {
            if let Some(value) = before["metadata"].get(owned) {
                after["metadata"][owned] = value.clone();
            }
        }
        if after == *before {
            return Ok(before);
        }
        let object = content.commit(resource, key, Some(before), after);
        self.announce(content);
        Ok(object)
    }

    pub(super) fn delete(
        &self,
        resource: &'static ResourceKind,
        namespace: &str,
        name: &str,
    ) -> Result<Arc<Value>, Status> {
        let mut content = self.lock();
        let key = Key::new(resource, namespace, name);
        let Some(before) = content.objects.remove(&key) else {
            return Err(Status::not_found(resource.plural, name));
        };
        content.record(resource, key.namespace, Some(Arc::clone(&before)), None);
        self.announce(content);
        Ok(before)
    }

    /// Deletes everything in a namespace.
    pub(super) fn empty_namespace(&self, namespace: &str) {
        for resource in KINDS.iter().filter(|resource| resource.is_namespaced()) {
            for object in self.list(resource, namespace).0 {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                // Somebody else may have deleted it meanwhile, which is as well.
                let _ = self.delete(resource, namespace, name);
            }
        }
    }

    /// The changes after a version.
    ///
    /// # Errors
    /// Gone, when some of them are no longer kept.
    pub(super) fn changes_after(&self, version: u64) -> Result<Vec<Change>, Status> {
        let content = self.lock();
        let oldest = content
            .changes
            .front()
            .map_or(content.version, |change| change.version - 1);
        if version < oldest {
            return Err(Status::expired(version, oldest));
        }
        let newer = content
            .changes
            .iter()
            .filter(|change| change.version > version);
        Ok(newer.cloned().collect())
    }

    /// Tells of every new version.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.latest.subscribe()
    }

    fn announce(&self, content: MutexGuard<'_, Content>) {
        let version = content.version;
        drop(content);
        self.latest
            .send_modify(|latest| *latest = version.max(*latest));
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content {
    fn commit(
        &mut self,
        resource: &'static ResourceKind,
        key: Key,
        before: Option<Arc<Value>>,
        mut after: Value,
    ) -> Arc<Value> {
        after["metadata"]["resourceVersion"] = json!((self.version + 1).to_string());
        let after = Arc::new(after);
        self.record(
            resource,
            key.namespace.clone(),
            before,
            Some(Arc::clone(&after)),
        );
        self.objects.insert(key, Arc::clone(&after));
        after
    }

    fn record(
        &mut self,
        resource: &'static ResourceKind,
        namespace: String,
        before: Option<Arc<Value>>,
        after: Option<Arc<Value>>,
    ) {
        self.version += 1;
        if self.changes.len() == MAX_CHANGES {
            self.changes.pop_front();
        }
        self.changes.push_back(Change {
            version: self.version,
            resource,
            namespace,
            before,
            after,
        });
    }
}

/// The present second, as Kubernetes writes times.
pub(super) fn now() -> String {
    OffsetDateTime::now_utc()
        .replace_nanosecond(0)
        .expect("0 is a valid nanosecond")
        .format(&Rfc3339)
        .expect("the present has a four-digit year")
}

#[cfg(test)]
mod tests {
    use super::{super::resource::builtin, *};

    fn config_map(name: &str) -> Value {
        json!({ "metadata": { "name": name }, "data": { "a": "1" } })
    }

    #[test]
    fn every_change_has_a_version_of_its_own_and_is_kept_for_watchers() {
        let store = Store::default();
        let maps = builtin("configmaps");
        store.create(maps, "default", config_map("a")).unwrap();
        let same = store
            .update(maps, "default", "a", |object| Ok(object.clone()))
            .unwrap();
        assert_eq!(same["metadata"]["resourceVersion"], "1");
        store
            .update(maps, "default", "a", |object| {
                let mut object = object.clone();
                object["data"]["a"] = json!("2");
                Ok(object)
            })
            .unwrap();
        store.delete(maps, "default", "a").unwrap();
        let versions: Vec<u64> = store
            .changes_after(0)
            .unwrap()
            .iter()
            .map(|change| change.version)
            .collect();
        assert_eq!(versions, [1, 2, 3]);
        assert_eq!(store.changes_after(3).unwrap().len(), 0);
    }

    #[test]
    fn a_stale_resource_version_is_a_conflict() {
        let store = Store::default();
        let maps = builtin("configmaps");
        store.create(maps, "default", config_map("a")).unwrap();
        let error = store
            .update(maps, "default", "a", |object| {
                let mut object = object.clone();
                object["metadata"]["resourceVersion"] = json!("77");
                Ok(object)
            })
            .unwrap_err();
        assert_eq!(error.code(), 409);
    }

    #[test]
    fn a_watcher_that_is_too_late_is_told_so() {
        let store = Store::default();
        let maps = builtin("configmaps");
        for number in 0..=MAX_CHANGES {
            store
                .create(maps, "default", config_map(&format!("m{number}")))
                .unwrap();
        }
        assert_eq!(store.changes_after(0).err().unwrap().code(), 410);
        assert_eq!(store.changes_after(1).unwrap().len(), MAX_CHANGES);
    }
}
