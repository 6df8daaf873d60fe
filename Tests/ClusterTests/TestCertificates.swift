/// Certificates for tests: two authorities, and a certificate of each. Good for a hundred years, and for nothing else.
enum TestCertificates {
    static let authority = """
        -----BEGIN CERTIFICATE-----
        MIIBcDCCARegAwIBAgIUJ/gDYAJKe8M1q+aBASm3JepF+MEwCgYIKoZIzj0EAwIw
        DTELMAkGA1UEAwwCY2EwIBcNMjYxMTIxMjEwMzUyWhgPMjEyNjEwMjgyMTAzNTJa
        MA0xCzAJBgNVBAMMAmNhMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEphFQjTH5
        mrAY3J7CbjUvsh2FnMIUwbo2EPlbPDeHEDKZ7+w9Zh657KeDoIijr6G/KbMKJqz1
        E8InN1HPGEt83qNTMFEwHQYDVR0OBBYEFCre2QnUEBLfJdQT18JTMMG89WCbMB8G
        A1UdIwQYMBaAFCre2QnUEBLfJdQT18JTMMG89WCbMA8GA1UdEwEB/wQFMAMBAf8w
        CgYIKoZIzj0EAwIDRwAwRAIgf8WvcFkh6YVycLIIexQDWGx0nY2XvtQuwaV3teLM
        lFwCIFR/8Ut7X2vYlXpkN//4ETnm93TiMkv4zZvEZMO4LH7Z
        -----END CERTIFICATE-----
        """
    static let certificate = """
        -----BEGIN CERTIFICATE-----
        MIIBGzCBwQIUX2JIZfVQVHglFevdMybN8DbtYMYwCgYIKoZIzj0EAwIwDTELMAkG
        A1UEAwwCY2EwIBcNMjYxMTIxMjEwMzUyWhgPMjEyNjEwMjgyMTAzNTJaMBExDzAN
        BgNVBAMMBmZsZWRnZTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABGcHpzP/a8Y4
        beYN0gEAOdGBxsqaHEcpg6v+IuR9Ct9ILA2sOVxBMHvj44NAV2mvuaku/fQyS4Et
        VSpaZUnmRLQwCgYIKoZIzj0EAwIDSQAwRgIhAI1IT4UGBRwovKVcfU5bnp2vD9UE
        tUqk9Hv6iQZfu3eDAiEApOe8Wo/4apQbFwaBJJsgU3EtRxdJRMZaUUOUrleOFF8=
        -----END CERTIFICATE-----
        """
    static let key = """
        -----BEGIN PRIVATE KEY-----
        MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgkPEuw1xqkrp/RzTF
        MuhiEbuCI51gV3WaQIXLeDyzajyhRANCAARnB6cz/2vGOG3mDdIBADnRgcbKmhxH
        KYOr/iLkfQrfSCwNrDlcQTB74+ODQFdpr7mpLv30MkuBLVUqWmVJ5kS0
        -----END PRIVATE KEY-----
        """
    static let strangersAuthority = """
        -----BEGIN CERTIFICATE-----
        MIIBeDCCAR2gAwIBAgIUMtawRJMPZBmKp5hkeaDH1ZDPxHkwCgYIKoZIzj0EAwIw
        EDEOMAwGA1UEAwwFb3RoZXIwIBcNMjYxMTIxMjEwMzUyWhgPMjEyNjEwMjgyMTAz
        NTJaMBAxDjAMBgNVBAMMBW90aGVyMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE
        sSSiPKOXHsXP9GwbXs0K/4wNJLf0QHfe2KoK/xGuQVxDQfDKTV9BQMnWIcvZsjMR
        pzn3jg6lSNmuW+mcYn0ik6NTMFEwHQYDVR0OBBYEFP9nab0TCdun31CKm3Cp2ncg
        MIYbMB8GA1UdIwQYMBaAFP9nab0TCdun31CKm3Cp2ncgMIYbMA8GA1UdEwEB/wQF
        MAMBAf8wCgYIKoZIzj0EAwIDSQAwRgIhANL7zftbcQ/vqQ9vPl5Yj3z4DIJ0Tbex
        divj/wSk/nV0AiEApW8mvySI4HLUH2TaENqxGH2fvcCHEJl5yw8ZY3nsmZY=
        -----END CERTIFICATE-----
        """
    static let strangersCertificate = """
        -----BEGIN CERTIFICATE-----
        MIIBHTCBxAIUd1cDd4oDHfQOXyk3pFb6v32r5OowCgYIKoZIzj0EAwIwEDEOMAwG
        A1UEAwwFb3RoZXIwIBcNMjYxMTIxMjEwMzUyWhgPMjEyNjEwMjgyMTAzNTJaMBEx
        DzANBgNVBAMMBmZsZWRnZTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABPZ1KYUH
        CAFdSiz86R+CWSOOuhVts1CpIFzoJyofrBLu9d5ImWMOHZquZmeLMy4BvrpFT/FC
        JUgOIUP8xdzZU3kwCgYIKoZIzj0EAwIDSAAwRQIgMR+63tw51wX3qYFAoB+PNwet
        dJPD1pn1uSB5Vtl1DWQCIQCqYtrd4OfrzKOXmCnaRQ8HwOd986UaUmd/lqwYrm/m
        cA==
        -----END CERTIFICATE-----
        """
    static let strangersKey = """
        -----BEGIN PRIVATE KEY-----
        MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQggt1F4Naoy+pdLQtV
        +G8i2cd5z1N9V+fRjIp5MNxaLbShRANCAAT2dSmFBwgBXUos/OkfglkjjroVbbNQ
        qSBc6CcqH6wS7vXeSJljDh2armZnizMuAb66RU/xQiVIDiFD/MXc2VN5
        -----END PRIVATE KEY-----
        """
}
