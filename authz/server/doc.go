// Package server connects all parts and runs them: New builds everything and listens, Run serves until its context ends and
// then stops everything in order.
//
// The life of a server, and what a crash costs at each point:
//
//  1. New opens and locks the database. A second server on the same data directory stops here.
//  2. It loads policies, plans and reasons. Where the configured ones cannot be used, the last good ones take their place,
//     which are kept in the data directory. Without either, the server does not start. The keys of issuers are fetched in
//     the meantime; until they arrive, tokens are refused.
//  3. It reads all revocations. Until then the set is stale, and every check would be denied.
//  4. It opens the ports. From here on no mistake in the configuration can stop it.
//  5. Run serves checks, the admin API and revocations from outside. Health says SERVING as soon as all keys and revocations are
//     known, which only a database that is away delays. A crash here strands at most the units of the leases that this node holds.
//  6. The context ends. Health says NOT_SERVING, and checks are answered for shutdown.delay, until Envoys ask other
//     replicas. Then no new checks are taken, and those under way have shutdownGrace to finish.
//  7. Leases are returned. A crash before this strands them; a crash after it costs nothing.
//  8. Queued decisions are written, and the database is closed.
//
// Read server.go first: New, Run and what they call, in order. Then assemble.go, which gives each part what it needs, and
// ports.go, which opens the ports.
package server
