package config

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestRead_Store(t *testing.T) {
	const file = "store:\n  postgres:\n    url_file: /etc/tollkeeper/url\n    max_connections: 20\n    statement_timeout: 2s\n"
	for name, c := range map[string]struct {
		file        string
		environment map[string]string
		want        func(*Store)
	}{
		"default":          {"", nil, func(*Store) {}},
		"kind alone":       {"store: postgres\n", nil, func(s *Store) { s.Kind = "postgres" }},
		"empty section":    {"store: {postgres: {}}\n", nil, func(s *Store) { s.Kind = "postgres" }},
		"empty":            {"store: {}\n", nil, func(*Store) {}},
		"variable of kind": {file, map[string]string{"TOLLKEEPER_STORE": "memory"}, func(s *Store) { s.Kind = "memory"; fields(s) }},
		"section":          {file, nil, func(s *Store) { s.Kind = "postgres"; fields(s) }},
		"variable of a field": {file, map[string]string{"TOLLKEEPER_STORE_POSTGRES_MAX_CONNECTIONS": "5"}, func(s *Store) {
			s.Kind = "postgres"
			fields(s)
			s.Postgres.MaxConnections = 5
		}},
		"variables alone": {"", map[string]string{"TOLLKEEPER_STORE": "postgres", "TOLLKEEPER_STORE_POSTGRES_URL": "postgres://h/d"}, func(s *Store) {
			s.Kind, s.Postgres.URL = "postgres", "postgres://h/d"
		}},
	} {
		t.Run(name, func(t *testing.T) {
			want := Default().Store
			c.want(&want)
			if got, err := Read("x.yaml", []byte(c.file), c.environment); err != nil || got.Store != want {
				t.Errorf("%v\ngot  %+v\nwant %+v", err, got.Store, want)
			}
		})
	}
}

// fields sets what the file of TestRead_Store has.
func fields(s *Store) {
	s.Postgres.URLFile, s.Postgres.MaxConnections, s.Postgres.StatementTimeout = "/etc/tollkeeper/url", 20, Duration{Duration: 2 * time.Second}
}

func TestRead_StoreMistakes(t *testing.T) {
	for name, c := range map[string]struct {
		file        string
		environment map[string]string
		want        string
	}{
		"kind":                {"store: redis\n", nil, `x.yaml:1:8: store: "redis": want bolt, memory or postgres`},
		"list":                {"store: [bolt]\n", nil, "x.yaml:1:8: store: want one value"},
		"unknown kind inside": {"store: {redis: {}}\n", nil, `x.yaml:1:9: unknown field "redis"`},
		"unknown field":       {"store:\n  postgres:\n    ulr: x\n", nil, `x.yaml:3:5: unknown field "ulr"`},
		"nameless field":      {"store: {'': bolt}\n", nil, `x.yaml:1:9: unknown field ""`},
		"text":                {"store: {postgres: x}\n", nil, "x.yaml:1:19: store.postgres: want fields, such as url_file: …"},
		"no URL":              {"store: {postgres: {url: 'host=x password=secret'}}\n", nil, "x.yaml:1:25: store.postgres.url: want a URL such as"},
		"two URLs":            {"store: {postgres: {url: 'postgres://h', url_file: f}}\n", nil, "x.yaml:1:25: store.postgres.url: want a url or a url_file"},
		"connections":         {"store: {postgres: {max_connections: 0}}\n", nil, "x.yaml:1:37: store.postgres.max_connections: 0: want"},
		"timeout":             {"store: {postgres: {statement_timeout: 0s}}\n", nil, "x.yaml:1:39: store.postgres.statement_timeout: 0s: want"},
		"variable not used": {"store: bolt\n", map[string]string{"TOLLKEEPER_STORE_POSTGRES_URL": "postgres://u:secret@h/d"},
			"TOLLKEEPER_STORE_POSTGRES_URL: the store is bolt: set TOLLKEEPER_STORE=postgres too"},
		"misspelt variable": {"", map[string]string{"TOLLKEEPER_STORE_POSTGRES_URLFILE": "f"},
			"TOLLKEEPER_STORE_POSTGRES_URLFILE: there is no such variable: the nearest is TOLLKEEPER_STORE_POSTGRES_URL_FILE"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Read("x.yaml", []byte(c.file), c.environment)
			if err == nil || !strings.HasPrefix(err.Error(), c.want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}

// TestURL_HidesItsPassword prints a configuration in every way in which it could end up in a log.
func TestURL_HidesItsPassword(t *testing.T) {
	for url, want := range map[URL]string{
		"":                                   "",
		"postgres://h:5432/d":                "postgres://h:5432/d",
		"postgres://u@h/d?sslmode=require":   "postgres://u@h/d?sslmode=require",
		"postgres://u:s3cret@h:1,i:2/d":      "postgres://u:xxxxx@h:1,i:2/d",
		"postgres://u:s3cret@s3cret/@h/d":    "postgres://u:xxxxx@h/d",
		"postgres://u:s3cr:et@h/d":           "postgres://u:xxxxx@h/d",
		"postgres://u:x?s3cret@h/d":          "postgres://u:xxxxx@h/d",
		"postgres://h/d?password=s3cret":     "postgres://h/d?xxxxx",
		"postgres://h/d?sslPassword=s3cret":  "postgres://h/d?xxxxx",
		"postgres://h/d?pass%77ord=s3cret":   "postgres://h/d?xxxxx",
		"host=h password=s3cret":             "xxxxx",
		"postgres://:s3cret@h/d?user=u":      "postgres://:xxxxx@h/d?user=u",
		"postgres://h/d?%70assword=s3cret&a": "postgres://h/d?xxxxx",
	} {
		cfg := Default()
		cfg.Store.Postgres.URL = url
		if got := url.String(); got != want {
			t.Errorf("%q is printed as %q, want %q", url.Text(), got, want)
		}
		text, err := json.Marshal(cfg)
		if err != nil {
			t.Fatal(err)
		}
		for _, out := range []string{string(text), fmt.Sprintf("%v %+v %#v", cfg, cfg, cfg) + fmt.Sprintf("%s %q", url, url), fmt.Sprintf("%x", url)} {
			if strings.Contains(out, "s3cret") || strings.Contains(out, fmt.Sprintf("%x", "s3cret")) {
				t.Errorf("%s", out)
			}
		}
	}
}
