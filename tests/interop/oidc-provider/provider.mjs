// A certified OpenID Connect provider as an issuer of callers' tokens. Says on standard output, in one line of JSON, where
// it is and what a token of it looks like; ends when standard input does.
import { readFileSync } from 'node:fs';
import https from 'node:https';
import Provider from 'oidc-provider';

const [certificate, key, ca] = process.argv.slice(2).map((path) => readFileSync(path));
const AUDIENCE = 'https://kubernetes.example';
const server = https.createServer({ cert: certificate, key });

server.listen(0, '127.0.0.1', async () => {
  const issuer = `https://localhost:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: [{
      client_id: 'robot',
      client_secret: 'secret-of-this-run',
      grant_types: ['client_credentials'],
      redirect_uris: [],
      response_types: [],
    }],
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: () => ({
          scope: 'api',
          audience: AUDIENCE,
          accessTokenFormat: 'jwt',
          jwt: { sign: { alg: 'RS256' } },
        }),
      },
    },
    extraTokenClaims: () => ({ email: 'robot@example.com', email_verified: true, groups: ['robots'] }),
  });
  server.on('request', provider.callback());

  const request = https.request(`${issuer}/token`, {
    ca,
    method: 'POST',
    headers: {
      'content-type': 'application/x-www-form-urlencoded',
      authorization: `Basic ${Buffer.from('robot:secret-of-this-run').toString('base64')}`,
    },
  }, async (response) => {
    let body = '';
    for await (const chunk of response) body += chunk;
    const { access_token: token } = JSON.parse(body);
    if (!token) throw new Error(body);
    console.log(JSON.stringify({ issuer, audience: AUDIENCE, token }));
  });
  request.end(new URLSearchParams({
    grant_type: 'client_credentials', resource: AUDIENCE, scope: 'api',
  }).toString());
});

process.stdin.on('end', () => process.exit(0)).resume();
