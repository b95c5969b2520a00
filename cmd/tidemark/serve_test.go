package main

import "testing"

func TestAdvertisedAddress(t *testing.T) {
	for _, c := range []struct {
		hold, url, api string
		want           string // the URL; empty: it holds all
		refused        bool
	}{
		{hold: "all", api: ":8080"},
		{hold: "all", url: "http://a:1", api: ":8080", refused: true},
		{hold: "share", api: "10.0.0.7:8080", want: "http://10.0.0.7:8080"},
		{hold: "share", api: "[::1]:8080", want: "http://[::1]:8080"},
		{hold: "share", api: ":8080", refused: true},
		{hold: "share", api: "0.0.0.0:8080", refused: true},
		{hold: "share", api: "[::]:8080", refused: true},
		{hold: "share", api: "127.0.0.1:0", refused: true},
		{hold: "share", url: "https://serve-1.example/", api: ":8080", want: "https://serve-1.example"},
		{hold: "share", url: "http://serve-1/api", api: ":8080", refused: true},
		{hold: "share", url: "http://me@serve-1", api: ":8080", refused: true},
		{hold: "share", url: "http://serve-1?a=b", api: ":8080", refused: true},
	} {
		share, err := holdFlags{Hold: c.hold, AdvertiseURL: c.url}.share(c.api)
		got := ""
		if share != nil {
			got = share.URL
		}
		if got != c.want || c.refused != (err != nil) {
			t.Errorf("--hold %s --advertise-url %q --api-addr %s: %q, %v", c.hold, c.url, c.api, got, err)
		}
	}
}
