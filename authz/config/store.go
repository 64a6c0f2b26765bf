package config

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Store says where keys, revocations and quotas are stored. A text alone is its kind.
type Store struct {
	// Kind is bolt, memory or postgres.
	Kind     string
	Postgres Postgres `yaml:"postgres" envPrefix:"POSTGRES_"`
}

// The kinds of store.
const (
	StoreBolt     = "bolt"
	StoreMemory   = "memory"
	StorePostgres = "postgres"
)

// UnmarshalText reads the short form, the kind alone. It returns no error: validate does.
func (s *Store) UnmarshalText(text []byte) error {
	s.Kind = string(text)
	return nil
}

// Postgres is a PostgreSQL database (version 15 or newer) that any number of servers share. It needs a schema: tollkeeper store migrate
// makes one, and brings an older one up to date before new servers start. A host on another machine has to prove its name by TLS
// (sslmode=verify-full), and of several hosts the primary is used.
type Postgres struct {
	// URLFile is a file with the URL, which may hold the password. It is read again for each new connection, so the password can be
	// changed while servers run.
	URLFile string `yaml:"url_file" env:"URL_FILE"`
	// URL is the way to the database: postgres://user@host:port/database?name=value, with the parameters of libpq. What it does not say
	// comes from the environment of libpq, such as PGHOST and PGPASSFILE. Put a password into url_file or into a file that PGPASSFILE
	// names. Empty, and no url_file: the environment says everything.
	URL URL `yaml:"url" env:"URL"`
	// ListenURLFile is a file with the URL for the one connection that waits for news, if url leads through PgBouncer in transaction
	// mode, which passes no notifications on. Empty, and no listen_url: url. Without notifications, servers look every second, and do not
	// ask each other for units: callers are told that a quota is exhausted although another server holds the last units of it, and
	// of a limit per second or minute they get the share of the server that they reach.
	ListenURLFile string `yaml:"listen_url_file" env:"LISTEN_URL_FILE"`
	// ListenURL is that URL itself, as in url.
	ListenURL URL `yaml:"listen_url" env:"LISTEN_URL"`
	// Insecure accepts a host on another machine that does not prove its name, or does not encrypt. Whoever is on the way to it can
	// then read and change keys and quotas.
	Insecure bool `yaml:"insecure" env:"INSECURE"`
	// Installation is the id of the only installation that is served (tollkeeper store status shows it). Set it if data_dir does not
	// outlive a server: an empty database in place of the right one is refused then. Empty: the one that data_dir remembers, or any at
	// the first start.
	Installation string `yaml:"installation" env:"INSTALLATION"`
	// MaxConnections is how many connections each server opens at the most, and one more that waits for news.
	MaxConnections int `yaml:"max_connections" env:"MAX_CONNECTIONS"`
	// ConnectTimeout is how long a new connection may take.
	ConnectTimeout Duration `yaml:"connect_timeout" env:"CONNECT_TIMEOUT"`
	// StatementTimeout is how long a statement may take.
	StatementTimeout Duration `yaml:"statement_timeout" env:"STATEMENT_TIMEOUT"`
	// IdleTimeout is the time after which an idle connection is closed.
	IdleTimeout Duration `yaml:"idle_timeout" env:"IDLE_TIMEOUT"`
}

// URL is the URL of a database. It does not show its password when it is printed.
type URL string

// Text is the whole URL.
func (u URL) Text() string { return string(u) }

// String hides the password, and the parameters if one of them may be a password.
func (u URL) String() string {
	scheme, rest, ok := strings.Cut(string(u), "://")
	if !ok {
		return strings.Repeat("x", min(len(u), 5))
	}
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		if colon := strings.IndexByte(rest[:at], ':'); colon >= 0 {
			rest = rest[:colon] + ":xxxxx" + rest[at:]
		}
	}
	rest, parameters, ok := strings.Cut(rest, "?")
	if strings.Contains(strings.ToLower(parameters), "pass") || strings.Contains(parameters, "%") {
		parameters = "xxxxx"
	}
	if ok {
		parameters = "?" + parameters
	}
	return scheme + "://" + rest + parameters
}

// GoString is String.
func (u URL) GoString() string { return u.String() }

// MarshalText is String, for JSON and logs.
func (u URL) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

func defaultStore() Store {
	return Store{Kind: StoreBolt, Postgres: Postgres{
		MaxConnections: 10, ConnectTimeout: Duration{Duration: 3 * time.Second},
		StatementTimeout: Duration{Duration: 5 * time.Second}, IdleTimeout: Duration{Duration: 5 * time.Minute},
	}}
}

// durations are those of the section, for validateTimes.
func (p *Postgres) durations() []minimum {
	return []minimum{
		{"store.postgres.connect_timeout", p.ConnectTimeout, time.Millisecond},
		{"store.postgres.statement_timeout", p.StatementTimeout, time.Millisecond},
		{"store.postgres.idle_timeout", p.IdleTimeout, time.Second},
	}
}

func (s *Store) validate() (field string, err error) {
	p := &s.Postgres
	for _, u := range []struct {
		field, file string
		url         URL
	}{{"url", p.URLFile, p.URL}, {"listen_url", p.ListenURLFile, p.ListenURL}} {
		switch {
		case u.url == "":
		case u.file != "":
			return "store.postgres." + u.field, fmt.Errorf("want a %s or a %s_file, not both", u.field, u.field)
		case !strings.HasPrefix(string(u.url), "postgres://") && !strings.HasPrefix(string(u.url), "postgresql://"):
			return "store.postgres." + u.field, errors.New("want a URL such as postgres://tollkeeper@db.example.com/tollkeeper")
		}
	}
	switch {
	case !slices.Contains([]string{StoreBolt, StoreMemory, StorePostgres}, s.Kind):
		return "store", fmt.Errorf("%q: want bolt, memory or postgres", s.Kind)
	case p.MaxConnections < 1:
		return "store.postgres.max_connections", fmt.Errorf("%d: want a number of connections, such as 10", p.MaxConnections)
	}
	return "", nil
}

// checkPostgresVariables refuses variables for a database that is not used: the server would start with an empty store.
func checkPostgresVariables(cfg *Config, environment map[string]string) error {
	if cfg.Store.Kind == StorePostgres {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(environment)) {
		if strings.HasPrefix(name, EnvPrefix+"STORE_POSTGRES_") && environment[name] != "" {
			return fmt.Errorf("%s: the store is %s: set %sSTORE=postgres too", name, cmp.Or(cfg.Store.Kind, "not set"), EnvPrefix)
		}
	}
	return nil
}
