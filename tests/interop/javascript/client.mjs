// What people do with the JavaScript client: each step is a line `ok STEP`; the first failure ends the run.

import { Writable } from 'node:stream';
import net from 'node:net';
import * as k8s from '@kubernetes/client-node';

const NAMESPACE = 'default';
const POD = 'web-0';

const config = new k8s.KubeConfig();
config.loadFromDefault();
const api = config.makeApiClient(k8s.CoreV1Api);

function ok(step) {
  console.log(`ok ${step}`);
}

function expect(condition, what) {
  if (!condition) throw new Error(`${what} was expected`);
}

function collector() {
  const pieces = [];
  const stream = new Writable({
    write(piece, _encoding, done) {
      pieces.push(piece);
      done();
    },
  });
  return { stream, text: () => Buffer.concat(pieces).toString() };
}

async function objects() {
  const pods = await api.listNamespacedPod({ namespace: NAMESPACE });
  expect(pods.items.some((pod) => pod.metadata.name === POD), POD);
  const body = { metadata: { name: 'from-javascript' }, data: { a: '1' } };
  await api.createNamespacedConfigMap({ namespace: NAMESPACE, body });
  const made = await api.readNamespacedConfigMap({ namespace: NAMESPACE, name: 'from-javascript' });
  expect(made.data.a === '1', 'the data');
  await api.deleteNamespacedConfigMap({ namespace: NAMESPACE, name: 'from-javascript' });
  try {
    await api.readNamespacedConfigMap({ namespace: NAMESPACE, name: 'from-javascript' });
    throw new Error('a deleted object was read');
  } catch (error) {
    expect(error.code === 404, `404 and not ${error}`);
  }
}

async function watch() {
  const list = await api.listNamespacedConfigMap({ namespace: NAMESPACE });
  const query = { resourceVersion: list.metadata.resourceVersion };
  let request;
  const seen = new Promise((resolve, reject) => {
    request = new k8s.Watch(config).watch(
      `/api/v1/namespaces/${NAMESPACE}/configmaps`,
      query,
      (type, object) => {
        if (type === 'ADDED' && object.metadata.name === 'watched-from-javascript') resolve();
      },
      (error) => error && error.name !== 'AbortError' && reject(error),
    );
  });
  const controller = await request;
  const body = { metadata: { name: 'watched-from-javascript' } };
  await api.createNamespacedConfigMap({ namespace: NAMESPACE, body });
  await seen;
  controller.abort();
  await api.deleteNamespacedConfigMap({ namespace: NAMESPACE, name: 'watched-from-javascript' });
}

async function logs() {
  const text = await api.readNamespacedPodLog({ namespace: NAMESPACE, name: POD });
  expect(text.length > 0, 'a log');
}

async function exec() {
  const output = collector();
  const status = await new Promise((resolve, reject) => {
    new k8s.Exec(config)
      .exec(NAMESPACE, POD, '', ['echo', 'through the tunnel'], output.stream, collector().stream, null, false, resolve)
      .catch(reject);
  });
  expect(status.status === 'Success', 'success');
  expect(output.text().trim() === 'through the tunnel', 'the output');
}

async function portForward() {
  const forward = new k8s.PortForward(config);
  const server = net.createServer((socket) => {
    forward.portForward(NAMESPACE, POD, [7], socket, null, socket);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const socket = net.connect(server.address().port, '127.0.0.1');
  socket.write('marco');
  const back = await new Promise((resolve, reject) => {
    let text = '';
    socket.on('data', (piece) => {
      text += piece;
      if (text.length >= 5) resolve(text);
    });
    socket.on('error', reject);
    socket.on('end', () => reject(new Error(`ended after "${text}"`)));
  });
  expect(back === 'marco', 'the echo');
  socket.destroy();
  server.close();
}

for (const step of [objects, watch, logs, exec, portForward]) {
  await step();
  ok(step.name);
}
process.exit(0);
