package bolt_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
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
)

// crashFile is the variable that makes the test binary write until it is killed.
const crashFile = "TOLLKEEPER_TEST_CRASH_FILE"

func TestMain(m *testing.M) {
	if path := os.Getenv(crashFile); path != "" {
		if err := writeUntilKilled(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	if path := os.Getenv(upgradeFile); path != "" {
		if err := openAndClose(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// writeUntilKilled makes writes of every kind on several goroutines and prints which were acknowledged.
func writeUntilKilled(path string) error {
	db, err := bolt.Open(path, bolt.Options{}.Restless())
	if err != nil {
		return err
	}
	run := fmt.Sprint(os.Getpid())
	errs := make(chan error)
	for worker := range 8 {
		go func() {
			for i := 0; ; i++ {
				if err := acknowledged(db, fmt.Sprintf("%s-%d-%d", run, worker, i), run, worker, i); err != nil {
					errs <- err
					return
				}
			}
		}()
	}
	return <-errs
}

// acknowledged makes one write and prints a line for it. A line is one system call: it is printed whole or not at all.
func acknowledged(db *bolt.DB, id, run string, worker, i int) error {
	ctx := context.Background()
	bucket, l := prepaid()
	l.Units = quota.MaxUnits
	var err error
	said := "key " + id
	switch worker {
	case 0, 1:
		_, err = db.Keys().Import(ctx, []apikey.Key{{ID: id, Account: "account " + id, Digest: apikey.Hasher{}.Text(id)}})
	case 2:
		if i%4 == 0 {
			said = "forgotten " + id
			err = revokeAndForget(ctx, db, id)
			break
		}
		said = "revoked " + id
		_, err = db.Revocations().Add(ctx, revocation.Record{Kind: revocation.KindKey, Value: id, At: time.Now()})
	case 3:
		said = "credit " + id
		_, err = db.Ledger().Credit(ctx, quota.CreditRequest{ID: id, Bucket: quota.Bucket{Holder: "credited"}, Limit: l, Units: 3})
	case 4, 5: // a caller who comes once
		said = "once " + id
		_, err = quotatest.Ask{Node: "once", Bucket: quota.Bucket{Holder: id}, Limit: l, Want: 1}.Send(ctx, db.Ledger())
	default:
		said = "lease " + id
		_, err = quotatest.Ask{
			Node: quota.NodeID(fmt.Sprint(run, "-", worker)), Seq: uint64(i), Bucket: bucket, Limit: l, Want: 5,
		}.Send(ctx, db.Ledger())
	}
	if err == nil {
		_, err = os.Stdout.WriteString(said + "\n")
	}
	return err
}

// revokeAndForget adds an expired record and prunes it.
func revokeAndForget(ctx context.Context, db *bolt.DB, id string) error {
	now := time.Now()
	if _, err := db.Revocations().Add(ctx, revocation.Record{Kind: revocation.KindKey, Value: id, At: now, ExpiresAt: now.Add(-1)}); err != nil {
		return err
	}
	_, err := db.Revocations().Prune(ctx, now, 100)
	return err
}

// TestStore_SurvivesKills kills a writing process again and again: no acknowledged write is lost. It moves the write-ahead log into
// the file all the time, so that it is killed while it does. Each time the killed file is inspected before it is opened.
func TestStore_SurvivesKills(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tollkeeper.db")
	acks := make(map[string]bool)
	for round := range 10 {
		before := len(acks)
		killOne(t, path, 1+rand.IntN(400), acks)
		inspectKilled(t, path)
		checkAcknowledged(t, path, acks)
		if t.Failed() || len(acks) == before {
			t.Fatalf("round %d, %d writes acknowledged in it", round, len(acks)-before)
		}
	}
	t.Logf("%d writes were acknowledged", len(acks))
}

// killOne starts a process and kills it at a random moment after that many lines.
func killOne(t *testing.T, path string, lines int, acks map[string]bool) {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), crashFile+"="+path)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(out)
	for n := 0; ; n++ {
		if n == lines { // lines that are on their way are read below
			time.AfterFunc(time.Duration(rand.IntN(3000))*time.Microsecond, func() { _ = child.Process.Kill() })
		}
		line, err := in.ReadString('\n')
		if err != nil {
			if !errors.Is(err, io.EOF) {
				t.Error(err)
			}
			break
		}
		acks[strings.TrimSpace(line)] = true
	}
	_ = child.Wait()
	if child.ProcessState.Exited() {
		t.Errorf("the process ended before it was killed: %v", child.ProcessState)
	}
}

// inspectKilled looks at what a killed process left, which changes nothing.
func inspectKilled(t *testing.T, path string) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := inspect(t, path, content); err != nil {
		t.Error(err)
	}
}

func checkAcknowledged(t *testing.T, path string, acks map[string]bool) {
	t.Helper()
	db, err := bolt.Open(path, bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer checkAndClose(t, db)
	ctx := t.Context()
	bucket, l := prepaid()
	l.Units = quota.MaxUnits
	var leased, credited int64
	for ack := range acks {
		kind, id, _ := strings.Cut(ack, " ")
		switch kind {
		case "key":
			if k, err := db.Keys().Find(ctx, apikey.Hasher{}.Text(id)); err != nil || k.ID != id {
				t.Errorf("%s is lost: %v", ack, err)
			}
			if _, err := db.Keys().Account(ctx, "account "+id); err != nil {
				t.Errorf("the account of %s is lost: %v", ack, err)
			}
		case "revoked":
			if _, ok, err := db.Revocations().Get(ctx, revocation.KindKey, "", id); !ok || err != nil {
				t.Errorf("%s is lost: %v", ack, err)
			}
		case "forgotten":
			if _, ok, err := db.Revocations().Get(ctx, revocation.KindKey, "", id); ok || err != nil {
				t.Errorf("%s is back: %v", ack, err)
			}
		case "credit":
			credited += 3
		case "once":
			if b, err := db.Ledger().Balance(ctx, quota.Bucket{Holder: id}, l); err != nil || b.Granted != 1 {
				t.Errorf("%s is lost: %+v, %v", ack, b, err)
			}
		case "lease":
			leased += 5
		}
	}
	if b, err := db.Ledger().Balance(ctx, bucket, l); err != nil || b.Granted < leased {
		t.Errorf("%d were leased: %+v, %v", leased, b, err)
	}
	if b, err := db.Ledger().Balance(ctx, quota.Bucket{Holder: "credited"}, authz.Limit{Window: authz.WindowNone}); err != nil || b.Allowance < credited {
		t.Errorf("%d were credited: %+v, %v", credited, b, err)
	}
}
