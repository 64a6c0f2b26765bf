package admin_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
)

// TestBackup_BreaksOff has a backup fail before its beginning, and in its middle. The caller never takes a part for the whole.
func TestBackup_BreaksOff(t *testing.T) {
	const token = "a token of some length"
	var backup atomic.Pointer[func(context.Context, io.Writer) error] // the server may still look at the one before
	set := func(f func(context.Context, io.Writer) error) { backup.Store(&f) }
	s := &admin.Service{Backup: func() (func(context.Context, io.Writer) error, error) {
		f := backup.Load()
		if f == nil {
			return nil, authz.Errorf(authz.KindConflict, "no file")
		}
		return *f, nil
	}}
	server := httptest.NewServer(admin.Handler(s, token, "1", http.NotFoundHandler(), slog.New(slog.DiscardHandler)))
	defer server.Close()
	client := admin.NewClient(server.URL, token)
	var out bytes.Buffer
	var refused *admin.Refused
	if err := client.Download(t.Context(), admin.Path("backup"), &out); !errors.As(err, &refused) || refused.Status != http.StatusConflict || refused.Detail != "no file" {
		t.Errorf("a server without a file: %v", err)
	}
	for _, written := range []int{0, 10, 1 << 20} {
		set(func(_ context.Context, w io.Writer) error {
			_, err := w.Write(make([]byte, written))
			return errors.Join(err, errors.New("the disk is gone"))
		})
		out.Reset()
		if err := client.Download(t.Context(), admin.Path("backup"), &out); err == nil || strings.Contains(err.Error(), "disk") {
			t.Errorf("broken off after %d bytes: %v", written, err)
		}
	}
	set(func(_ context.Context, w io.Writer) error {
		_, err := w.Write(make([]byte, 3<<20))
		return err
	})
	out.Reset()
	if err := client.Download(t.Context(), admin.Path("backup"), &out); err != nil || out.Len() != 3<<20 {
		t.Errorf("%d bytes, %v", out.Len(), err)
	}
}
