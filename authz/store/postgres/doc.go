// Package postgres keeps keys, revocations and the ledger in PostgreSQL (15 or newer), so that any number of nodes serve one
// installation. Everything is in the schema "tollkeeper", and every statement names it.
//
// Open makes a pool of connections. Each new connection is looked at before it is used (admit.go): the schema must be one that
// this program knows, the pepper the configured one, and the installation the one that this node served before. So a database that was
// replaced by an empty or a foreign one, at the start or years later, is a database that cannot be reached: requests are denied.
//
// tx.go runs transactions, and repeats those that PostgreSQL asks to repeat and those whose connection was lost before the commit
// was sent. What happened to a commit whose answer is lost is unknown, as the contracts say of KindUnavailable. errors.go maps errors to kinds.
// Statements work through PgBouncer in transaction mode: none relies on the state of a session. The two exceptions are LISTEN,
// without which nodes poll, and Migrate, which needs the owner's role anyway.
//
// gate.go keeps callers from a database that cannot be reached, until a probe has reached it.
//
// The ledger (ledger.go) carries out its verbs in transactions of two round trips (change.go), which verbs that wait share (batch.go). The nodes are
// in one row, the roll (members.go). state.go notices when another server answers that may lack commits. Nodes ask each other for units by
// NOTIFY (messages.go), which is also what wakes those that follow the feed (listen.go, feed.go).
//
// Migrate brings the schema up to date (migrate.go). The SQL is in migrations. A server never does that: it has a role that may
// only read and write rows.
//
// A request reads neither keys nor revocations from the database: each node holds them in memory and follows the feed of their
// changes (feed.go, which listen.go wakes). Of keys it holds all digests, and the records of those in use: keyfeed.go loads them and
// applies the feed, keyhold.go keeps the order, and keyreads.go reads what is not held. keycopy.go and revocationcopy.go keep files
// with which a node starts while the database is away.
//
// What nodes tell each other goes over NOTIFY: listen.go hears it on a connection of its own, and finds out by itself whether it does.
// messages.go has nodes ask each other for units that they hold, and answers.go answers. None of it is durable, and each message may
// be lost.
//
// README.md is for operators. Read migrations/0001.sql for the tables, then open.go and tx.go. pgtest runs real servers for tests.
package postgres
