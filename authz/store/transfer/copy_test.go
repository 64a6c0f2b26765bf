package transfer_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota/quotatest"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/bolt"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/postgres"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/transfer"
)

var noon = time.Date(2026, 11, 30, 12, 0, 0, 123_456_789, time.UTC)

// sample writes n things of each kind into a new file and returns its path. The last of the ledger are in the write-ahead log alone.
func sample(t testing.TB, n int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tollkeeper.db")
	db, err := bolt.Open(path, bolt.Options{Pepper: "none", Now: func() time.Time { return noon }})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	var keys []apikey.Key
	prepaid := authz.Limit{Name: "credits", Units: 10, Window: authz.WindowNone, Per: authz.PerAccount}
	var errs []error
	for i := range n {
		account := fmt.Sprintf("account-%06d", i/3)
		keys = append(keys, apikey.Key{ID: fmt.Sprintf("key_%06d", i), Account: account, Digest: apikey.Hasher{}.Text(fmt.Sprint("text ", i)), CreatedAt: noon})
		bucket := quota.BucketOf(&prepaid, authz.Holder{Account: account})
		_, err1 := db.Revocations().Add(ctx, revocation.Record{Kind: revocation.KindJTI, Issuer: fmt.Sprint("issuer ", i%3), Value: fmt.Sprint(i), At: noon, ExpiresAt: noon.Add(time.Duration(i))})
		_, err2 := db.Ledger().Credit(ctx, quota.CreditRequest{ID: fmt.Sprint("order ", i), Bucket: bucket, Limit: prepaid, Units: 5, Note: "paid"})
		_, err3 := quotatest.Ask{Node: "dead", Seq: uint64(i + 1), Bucket: bucket, Limit: prepaid, Want: 2}.Send(ctx, db.Ledger())
		_, err4 := db.Ledger().Settle(ctx, quota.SettleRequest{ID: fmt.Sprint("stream ", i), Bucket: bucket, Limit: prepaid, Estimate: 1, Actual: 2})
		errs = append(errs, err1, err2, err3, err4)
	}
	_, err = db.Keys().Import(ctx, keys)
	errs = append(errs, err, db.Revocations().SetMark(ctx, revocation.Mark{Good: noon}), db.Close())
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	return path
}

// ends are the two kinds of target. Each says where a new one is.
var ends = map[string]func(t testing.TB) (place string){
	"bolt":     func(t testing.TB) string { return filepath.Join(t.TempDir(), "tollkeeper.db") },
	"postgres": func(t testing.TB) string { return prepared(t) },
}

// target is what Copy writes to.
type target interface {
	transfer.Target
	Close() error
}

func openTarget(place string) (target, error) {
	if strings.HasPrefix(place, "postgres://") {
		return postgres.OpenFilling(context.Background(), postgres.Options{URL: place})
	}
	return bolt.Fill(place)
}

func openSource(t testing.TB, place string) (transfer.Source, func()) {
	t.Helper()
	if strings.HasPrefix(place, "postgres://") {
		return postgresSource(t, place)
	}
	return boltSource(t, place)
}

// copyInto copies into a place as one run of the command does.
func copyInto(t testing.TB, from transfer.Source, place string) (transfer.Result, error) {
	t.Helper()
	to, err := openTarget(place)
	if err != nil {
		return transfer.Result{}, err
	}
	defer func() { _ = to.Close() }()
	return transfer.Copy(context.Background(), from, to, transfer.Options{Batch: 10})
}

// faulty is a source that fails after so many reads.
type faulty struct {
	transfer.Source
	reads int
	info  transfer.Info
}

var errFault = errors.New("the disk is gone")

func (f *faulty) Info() transfer.Info { return f.info }

func (f *faulty) Read(ctx context.Context, s transfer.Section, from []byte, limit int, each func(*transfer.Entry) error) ([]byte, error) {
	if f.reads--; f.reads < 0 {
		return nil, errFault
	}
	return f.Source.Read(ctx, s, from, limit, each)
}

func refusedServing(t *testing.T, place string) {
	t.Helper()
	var err error
	if strings.HasPrefix(place, "postgres://") {
		var db *postgres.DB
		if db, err = postgres.Open(t.Context(), postgres.Options{URL: place, Pepper: "none"}); err == nil {
			_ = db.Close()
		}
	} else {
		var db *bolt.DB
		if db, err = bolt.Open(place, bolt.Options{Pepper: "none"}); err == nil {
			_ = db.Close()
		}
	}
	if authz.KindOf(err) != authz.KindConflict || err == nil || !strings.Contains(err.Error(), "unfinished copy") {
		t.Errorf("an unfinished copy is served: %v", err)
	}
}

// TestCopy_GoesOn interrupts a copy after every read in turn.
func TestCopy_GoesOn(t *testing.T) {
	from, done := boltSource(t, sample(t, 30))
	defer done()
	want := sumsOf(t, from)
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			place, runs := end(t), 0
			for ; ; runs++ {
				r, err := copyInto(t, &faulty{Source: from, info: from.Info(), reads: 2}, place)
				if r.Resumed != (runs > 0) {
					t.Fatalf("run %d is resumed: %v", runs, r.Resumed)
				}
				if !errors.Is(err, errFault) {
					t.Fatal(err)
				}
				refusedServing(t, place)
				if strings.HasPrefix(err.Error(), "verifying") {
					break
				}
			}
			if runs < 5 {
				t.Errorf("only %d runs", runs)
			}
			if _, err := copyInto(t, from, place); err != nil {
				t.Fatal(err)
			}
			got, done := openSource(t, place)
			if got := sumsOf(t, got); !maps.Equal(got, want) {
				t.Errorf("there is %v, want %v", got, want)
			}
			done()
			if _, err := copyInto(t, from, place); authz.KindOf(err) != authz.KindConflict {
				t.Errorf("a finished copy is written over: %v", err)
			}
		})
	}
}

// TestCopy_OfAnother begins again if the source has changed, and refuses another source.
func TestCopy_OfAnother(t *testing.T) {
	from, done := boltSource(t, sample(t, 30))
	defer done()
	less, doneLess := boltSource(t, sample(t, 10))
	defer doneLess()
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			place := end(t)
			if _, err := copyInto(t, &faulty{Source: from, info: from.Info(), reads: 9}, place); !errors.Is(err, errFault) {
				t.Fatal(err)
			}
			if _, err := copyInto(t, less, place); authz.KindOf(err) != authz.KindConflict || !strings.Contains(err.Error(), "of another store") {
				t.Errorf("a copy goes on from another source: %v", err)
			}
			info := less.Info()
			info.Store = from.Info().Store
			r, err := copyInto(t, &faulty{Source: less, info: info, reads: 1e9}, place)
			if err != nil || r.Resumed {
				t.Fatalf("resumed %v, %v", r.Resumed, err)
			}
			got, done := openSource(t, place)
			defer done()
			if got, want := sumsOf(t, got), sumsOf(t, less); !maps.Equal(got, want) {
				t.Errorf("there is %v, want %v", got, want)
			}
		})
	}
}

// twisted is a source that answers otherwise from the second time on.
type twisted struct {
	transfer.Source
	seen map[transfer.Section]bool
}

func (s *twisted) Read(ctx context.Context, sec transfer.Section, from []byte, limit int, each func(*transfer.Entry) error) ([]byte, error) {
	next, err := s.Source.Read(ctx, sec, from, limit, func(e *transfer.Entry) error {
		if sec == transfer.Holders && !s.seen[sec] {
			s.seen[sec] = true
			return nil
		}
		return each(e)
	})
	return next, err
}

// TestCopy_Verifies loses an entry on the way.
func TestCopy_Verifies(t *testing.T) {
	from, done := boltSource(t, sample(t, 30))
	defer done()
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			place := end(t)
			_, err := copyInto(t, &twisted{from, make(map[transfer.Section]bool)}, place)
			if authz.KindOf(err) != authz.KindConflict || !strings.Contains(err.Error(), "holders has 9 entries") {
				t.Fatalf("a lost entry: %v", err)
			}
			refusedServing(t, place)
			r, err := copyInto(t, from, place)
			if err != nil || r.Resumed {
				t.Errorf("the next copy: resumed %v, %v", r.Resumed, err)
			}
		})
	}
}

// copyVariable makes the test binary copy in small batches until it is done or killed: from and to, with a line between.
const copyVariable = "TRANSFER_TEST_COPY"

func TestMain(m *testing.M) {
	if text := os.Getenv(copyVariable); text != "" {
		from, to, _ := strings.Cut(text, "\n")
		if err := copyUntilKilled(from, to); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func copyUntilKilled(from, place string) error {
	file, err := bolt.Inspect(from)
	if err != nil {
		return err
	}
	s, err := file.Source(context.Background())
	if err != nil {
		return err
	}
	to, err := openTarget(place)
	if err != nil {
		return err
	}
	_, err = transfer.Copy(context.Background(), s, to, transfer.Options{Batch: 5, Report: func(transfer.Report) { fmt.Println("a batch") }})
	return errors.Join(err, to.Close())
}

// TestCopy_Killed kills a copy with SIGKILL after every few batches, until one comes to the end.
func TestCopy_Killed(t *testing.T) {
	path := sample(t, 60)
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			place, kills := end(t), 0
			for killCopy(t, path, place, 3+kills) {
				kills++
			}
			if kills < 3 {
				t.Errorf("only %d were killed", kills)
			}
			from, done := boltSource(t, path)
			defer done()
			got, doneGot := openSource(t, place)
			defer doneGot()
			if got, want := sumsOf(t, got), sumsOf(t, from); !maps.Equal(got, want) {
				t.Errorf("there is %v, want %v", got, want)
			}
		})
	}
}

// killCopy runs a copy, and kills it after so many batches. It reports whether it was killed.
func killCopy(t *testing.T, from, to string, batches int) bool {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), copyVariable+"="+from+"\n"+to)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewScanner(out)
	for n := 0; in.Scan(); n++ {
		if n == batches {
			_ = child.Process.Kill()
		}
	}
	if err := child.Wait(); err == nil {
		return false
	} else if child.ProcessState.Exited() {
		t.Fatalf("the copy ended before it was killed: %v", err)
	}
	return true
}
