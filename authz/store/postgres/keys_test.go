package postgres

import (
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey/apikeytest"
)

func TestKeys_Contract(t *testing.T) {
	apikeytest.Run(t, func(t *testing.T, _ func() time.Time) apikey.Store {
		return open(t, Options{URL: migrated(t)}).Keys()
	})
}
