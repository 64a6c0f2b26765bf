package pgtest

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
)

var (
	shared    = sync.OnceValues(func() (*Server, error) { return Start(Options{Fast: true}) })
	databases atomic.Int64 // that were made, for their names
	templates sync.Map     // name -> *template
	makingOne sync.Mutex   // one copy at a time: nobody may be connected to a template that is copied
)

// Shared returns the server of this test binary, which is started by the first call and ends with the binary. It does not fsync.
func Shared(t testing.TB) *Server {
	t.Helper()
	s, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// New returns the URL of an empty database on the shared server. It is dropped when the test ends.
func New(t testing.TB) string {
	t.Helper()
	return create(t, Shared(t), "template0")
}

type template struct {
	once sync.Once
	name string
	err  error
}

// Prepared returns the URL of a copy of a database that prepare has filled, such as with the schema. In a test binary prepare is called
// once for each name.
func Prepared(t testing.TB, name string, prepare func(ctx context.Context, url string) error) string {
	t.Helper()
	s := Shared(t)
	v, _ := templates.LoadOrStore(name, &template{name: "template_" + name})
	tpl := v.(*template)
	tpl.once.Do(func() {
		if tpl.err = s.create(tpl.name, "template0"); tpl.err == nil {
			tpl.err = prepare(context.Background(), s.URL(tpl.name))
		}
	})
	if tpl.err != nil {
		t.Fatal(tpl.err)
	}
	return create(t, s, tpl.name)
}

func create(t testing.TB, s *Server, from string) string {
	t.Helper()
	name := fmt.Sprintf("test_%d", databases.Add(1))
	if err := s.create(name, from); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Exec(context.Background(), "postgres", "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Error(err)
		}
	})
	return s.URL(name)
}

// CreateDatabase makes an empty database on a server that is not shared.
func (s *Server) CreateDatabase(name string) error { return s.create(name, "template0") }

func (s *Server) create(name, from string) error {
	makingOne.Lock()
	defer makingOne.Unlock()
	return s.Exec(context.Background(), "postgres", fmt.Sprintf("CREATE DATABASE %s OWNER %s TEMPLATE %s", name, Owner, from))
}
