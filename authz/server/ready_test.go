package server

import (
	"path/filepath"
	"testing"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/tollkeeper-authz/tollkeeper/authz/config"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/postgres/pgtest"
)

// TestHealth_WaitsForTheDatabaseOnce starts a server while the database is away. It lives, and is not ready before it knows the keys. Later
// it stays ready without the database.
func TestHealth_WaitsForTheDatabaseOnce(t *testing.T) {
	db, err := pgtest.Start(pgtest.Options{Fast: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if err := db.CreateDatabase("d"); err != nil {
		t.Fatal(err)
	}
	cfg := configFor(filepath.Join(t.TempDir(), "data"))
	cfg.Store.Kind, cfg.Store.Postgres.URL = config.StorePostgres, config.URL(db.URL("d"))
	if _, err := MigrateStore(t.Context(), cfg, ""); err != nil {
		t.Fatal(err)
	}
	if err := db.Stop(); err != nil {
		t.Fatal(err)
	}
	r := start(t, cfg)
	says := func(service string) healthpb.HealthCheckResponse_ServingStatus {
		resp, err := r.health.Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
		if err != nil {
			t.Fatal(err)
		}
		return resp.GetStatus()
	}
	const yes, no = healthpb.HealthCheckResponse_SERVING, healthpb.HealthCheckResponse_NOT_SERVING
	r.await("it lives", func() bool { return says(alive) == yes })
	if got := says(deciding); got != no {
		t.Errorf("without keys: %v", got)
	}
	if err := db.Start(); err != nil {
		t.Fatal(err)
	}
	r.await("it is ready", func() bool { return says(deciding) == yes })
	key := r.newKey("acme", "pro")
	r.want(key.Key, 200, "")
	if err := db.Stop(); err != nil {
		t.Fatal(err)
	}
	r.want(key.Key, 200, "") // from its lease
	if a, d := says(alive), says(deciding); a != yes || d != yes {
		t.Errorf("without a database later: %v, %v", a, d)
	}
}
