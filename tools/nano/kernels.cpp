// The small elementwise parts of a Gemma 3n layer, forward and backward, each as one pass over memory.
// Eager PyTorch spends more than half of its time in these at width ~100. One thread: training runs one process per core.
// Rows are tokens. Weight gradients (dw, dW…) are added to, all other outputs are overwritten.
#include <cmath>
#include <cstring>
#include <vector>
#define API extern "C" __attribute__((visibility("default"))) void
typedef long I;
typedef const float* __restrict In;   // no two arguments of a kernel overlap: lets the compiler vectorise
typedef float* __restrict Out;
static const float EPS = 1e-6f;

static inline float inv_rms(In x, I D) { float s = 0; for (I d = 0; d < D; d++) s += x[d] * x[d]; return 1.f / std::sqrt(s / D + EPS); }

// y[N][D] = res + x / rms(x) * w        (res and w may be null)
API rms_fwd(In x, In w, In res, Out y, I N, I D) {
  for (I n = 0; n < N; n++, x += D, y += D) {
    float r = inv_rms(x, D);
    if (w) for (I d = 0; d < D; d++) y[d] = x[d] * r * w[d]; else for (I d = 0; d < D; d++) y[d] = x[d] * r;
    if (res) { for (I d = 0; d < D; d++) y[d] += res[d]; res += D; }
  }
}
static inline void rms_row_bwd(In x, In w, In g, Out dx, Out dw, I D) {
  float r = inv_rms(x, D), s = 0;
  if (w) { for (I d = 0; d < D; d++) s += g[d] * w[d] * x[d]; } else for (I d = 0; d < D; d++) s += g[d] * x[d];
  float k = s * r * r * r / D;
  if (w) for (I d = 0; d < D; d++) { dw[d] += g[d] * x[d] * r; dx[d] = g[d] * w[d] * r - x[d] * k; }
  else for (I d = 0; d < D; d++) dx[d] = g[d] * r - x[d] * k;
}
API rms_bwd(In x, In w, In g, Out dx, Out dw, I N, I D) {
  for (I n = 0; n < N; n++) rms_row_bwd(x + n * D, w, g + n * D, dx + n * D, dw, D);
}

// q/k heads: RMSNorm over d with weight w, then half-split rotation by (cos, sin)[row % T][d/2].   x, y: [N][H][d]
API rope_fwd(In x, In w, In co, In si, Out y, I N, I T, I H, I d) {
  I e = d / 2;
  for (I n = 0; n < N; n++) {
    const float *c = co + (n % T) * e, *s = si + (n % T) * e;
    for (I h = 0; h < H; h++, x += d, y += d) {
      float r = inv_rms(x, d);
      for (I i = 0; i < e; i++) { float a = x[i] * r * w[i], b = x[i + e] * r * w[i + e]; y[i] = a * c[i] - b * s[i]; y[i + e] = b * c[i] + a * s[i]; }
    }
  }
}
API rope_bwd(In x, In w, In co, In si, In g, Out dx, Out dw, I N, I T, I H, I d) {
  I e = d / 2; std::vector<float> t(d);
  for (I n = 0; n < N; n++) {
    const float *c = co + (n % T) * e, *s = si + (n % T) * e;
    for (I h = 0; h < H; h++, x += d, g += d, dx += d) {
      for (I i = 0; i < e; i++) { t[i] = g[i] * c[i] + g[i + e] * s[i]; t[i + e] = g[i + e] * c[i] - g[i] * s[i]; }
      rms_row_bwd(x, w, t.data(), dx, dw, d);
    }
  }
}

// Causal (windowed) grouped-query attention, logit scale 1.  q,o: [B][Tq][H][d]  k,v: [B][Tk][K][d]  p: [B][H][Tq][Tk]
// Query i stands at position off + i.
API attn_fwd(In q, In k, In v, Out o, Out p, I B, I Tq, I Tk, I H, I K, I d, I off, I win) {
  std::vector<float> kt(d * Tk);
  for (I b = 0; b < B; b++) for (I h = 0; h < H; h++) {
    I kv = h / (H / K);
    for (I j = 0; j < Tk; j++) for (I c = 0; c < d; c++) kt[c * Tk + j] = k[((b * Tk + j) * K + kv) * d + c];
    for (I i = 0; i < Tq; i++) {
      In qi = q + ((b * Tq + i) * H + h) * d; Out oi = o + ((b * Tq + i) * H + h) * d; Out r = p + ((b * H + h) * Tq + i) * Tk;
      I hi = off + i + 1, lo = hi - win > 0 ? hi - win : 0;
      std::memset(r, 0, Tk * sizeof(float));
      for (I c = 0; c < d; c++) { float a = qi[c]; In kc = &kt[c * Tk]; for (I j = lo; j < hi; j++) r[j] += a * kc[j]; }
      float m = r[lo], s = 0; for (I j = lo; j < hi; j++) m = r[j] > m ? r[j] : m;
      for (I j = lo; j < hi; j++) { r[j] = expf(r[j] - m); s += r[j]; }
      s = 1 / s; for (I j = lo; j < hi; j++) r[j] *= s;
      std::memset(oi, 0, d * sizeof(float));
      for (I j = lo; j < hi; j++) { float a = r[j]; In vj = v + ((b * Tk + j) * K + kv) * d; for (I c = 0; c < d; c++) oi[c] += a * vj[c]; }
    }
  }
}
API attn_bwd(In q, In k, In v, In p, In g, Out dq, Out dk, Out dv, I B, I Tq, I Tk, I H, I K, I d, I off, I win) {
  std::vector<float> vt(d * Tk), ds_(Tk); Out ds = ds_.data();
  std::memset(dk, 0, B * Tk * K * d * sizeof(float)); std::memset(dv, 0, B * Tk * K * d * sizeof(float));
  for (I b = 0; b < B; b++) for (I h = 0; h < H; h++) {
    I kv = h / (H / K);
    for (I j = 0; j < Tk; j++) for (I c = 0; c < d; c++) vt[c * Tk + j] = v[((b * Tk + j) * K + kv) * d + c];
    for (I i = 0; i < Tq; i++) {
      I at = ((b * Tq + i) * H + h) * d; In qi = q + at; In gi = g + at; In r = p + ((b * H + h) * Tq + i) * Tk; Out dqi = dq + at;
      I hi = off + i + 1, lo = hi - win > 0 ? hi - win : 0;
      for (I j = lo; j < hi; j++) ds[j] = 0;
      for (I c = 0; c < d; c++) { float a = gi[c]; In vc = &vt[c * Tk]; for (I j = lo; j < hi; j++) ds[j] += a * vc[j]; }
      float s = 0; for (I j = lo; j < hi; j++) s += ds[j] * r[j];
      for (I j = lo; j < hi; j++) ds[j] = r[j] * (ds[j] - s);
      std::memset(dqi, 0, d * sizeof(float));
      for (I j = lo; j < hi; j++) {
        I kj = ((b * Tk + j) * K + kv) * d; float a = ds[j], pr = r[j]; In kk = k + kj; Out dkk = dk + kj; Out dvv = dv + kj;
        for (I c = 0; c < d; c++) { dqi[c] += a * kk[c]; dkk[c] += a * qi[c]; dvv[c] += pr * gi[c]; }
      }
    }
  }
}

// y = gelu_tanh(t) * u with t = x, or for a sparse layer t = max(x - (mean + z std), 0) over the F active channels
static const float A0 = 0.7978845608f, A1 = 0.044715f;
static inline float tanh_(float x) { float e = expf(2 * x); return 1 - 2 / (e + 1); }
API gate_fwd(In x, In u, Out y, I N, I F, float z) {
  for (I n = 0; n < N; n++, x += F, u += F, y += F) {
    float c = 0;
    if (z > 0) { float m = 0, v = 0; for (I i = 0; i < F; i++) m += x[i]; m /= F; for (I i = 0; i < F; i++) v += (x[i] - m) * (x[i] - m); c = m + z * std::sqrt(v / F); }
    for (I i = 0; i < F; i++) {
      float t = x[i] - c; if (z > 0) t = t > 0 ? t : 0;
      float w = A0 * (t + A1 * t * t * t); w = w > 15 ? 15 : w < -15 ? -15 : w;
      y[i] = 0.5f * t * (1 + tanh_(w)) * u[i];
    }
  }
}
template <bool SPARSE> static void gate_row_bwd(In x, In u, In g, Out dx, Out du, I F, float z) {
  float c = 0, m = 0, k = 0, s = 0;
  if (SPARSE) { float v = 0; for (I i = 0; i < F; i++) m += x[i]; m /= F; for (I i = 0; i < F; i++) v += (x[i] - m) * (x[i] - m); float sd = std::sqrt(v / F); c = m + z * sd; k = z / (sd > 1e-12f ? sd : 1e-12f); }
  for (I i = 0; i < F; i++) {
    float t = x[i] - c; if (SPARSE) t = t > 0 ? t : 0;
    float w = A0 * (t + A1 * t * t * t); w = w > 15 ? 15 : w; w = w < -15 ? -15 : w;
    float th = tanh_(w), dt = 0.5f * (1 + th) + 0.5f * t * (1 - th * th) * A0 * (1 + 3 * A1 * t * t);
    du[i] = g[i] * 0.5f * t * (1 + th);
    dx[i] = g[i] * u[i] * dt * (SPARSE ? (t > 0 ? 1.f : 0.f) : 1.f);
  }
  if (SPARSE) { for (I i = 0; i < F; i++) s += dx[i]; s /= F; for (I i = 0; i < F; i++) dx[i] -= s * (1 + k * (x[i] - m)); }
}
API gate_bwd(In x, In u, In g, Out dx, Out du, I N, I F, float z) {
  for (I n = 0; n < N * F; n += F) if (z > 0) gate_row_bwd<true>(x + n, u + n, g + n, dx + n, du + n, F, z); else gate_row_bwd<false>(x + n, u + n, g + n, dx + n, du + n, F, z);
}

// AltUp router: m[4] = tanh( (rms(x) w / D) . W[4][D] )
static inline float router(In x, In w, In W, Out m, I D) {
  float r = inv_rms(x, D), s[4];
  for (int k = 0; k < 4; k++) { s[k] = 0; In Wk = W + k * D; for (I d = 0; d < D; d++) s[k] += x[d] * w[d] * Wk[d]; m[k] = tanhf(s[k] * r / D); }
  return r;
}
static inline void router_bwd(In x, In w, In W, In m, In dm, Out dx_add, Out dw, Out dW, I D, Out t, Out t2) {
  float r = inv_rms(x, D), z[4];
  for (int k = 0; k < 4; k++) z[k] = dm[k] * (1 - m[k] * m[k]) / D;
  for (I d = 0; d < D; d++) {
    float n = x[d] * r * w[d];
    t[d] = z[0] * W[d] + z[1] * W[D + d] + z[2] * W[2 * D + d] + z[3] * W[3 * D + d];
    dW[d] += z[0] * n; dW[D + d] += z[1] * n; dW[2 * D + d] += z[2] * n; dW[3 * D + d] += z[3] * n;
  }
  rms_row_bwd(x, w, t, t2, dw, D);
  for (I d = 0; d < D; d++) dx_add[d] += t2[d];
}

// Predict: c = router(S0) . Wp[16][4]^T;  Pr_i = S_i + sum_j c[i][j] S_j.   S, Pr: [4][N][D]  m: [N][4]
API predict_fwd(In S, In w, In Wr, In Wp, Out Pr, Out m, I N, I D) {
  I Q = N * D;
  for (I n = 0; n < N; n++) {
    In s = S + n * D; Out p = Pr + n * D; Out mn = m + n * 4; router(s, w, Wr, mn, D);
    for (int i = 0; i < 4; i++) {
      float c[4]; for (int j = 0; j < 4; j++) { In q = Wp + (i * 4 + j) * 4; c[j] = q[0] * mn[0] + q[1] * mn[1] + q[2] * mn[2] + q[3] * mn[3]; }
      c[i] += 1;
      for (I d = 0; d < D; d++) p[i * Q + d] = c[0] * s[d] + c[1] * s[Q + d] + c[2] * s[2 * Q + d] + c[3] * s[3 * Q + d];
    }
  }
}
API predict_bwd(In S, In w, In Wr, In Wp, In m, In g, Out dS, Out dw, Out dWr, Out dWp, I N, I D) {
  I Q = N * D; std::vector<float> t(D), t2(D);
  for (I n = 0; n < N; n++) {
    const float *s = S + n * D, *gn = g + n * D, *mn = m + n * 4; Out ds = dS + n * D; float c[4][4], dm[4] = {0, 0, 0, 0};
    for (int i = 0; i < 4; i++) for (int j = 0; j < 4; j++) {
      In q = Wp + (i * 4 + j) * 4; Out dq = dWp + (i * 4 + j) * 4;
      c[i][j] = q[0] * mn[0] + q[1] * mn[1] + q[2] * mn[2] + q[3] * mn[3] + (i == j);
      float dc = 0; const float *a = gn + i * Q, *b = s + j * Q; for (I d = 0; d < D; d++) dc += a[d] * b[d];
      for (int k = 0; k < 4; k++) { dm[k] += dc * q[k]; dq[k] += dc * mn[k]; }
    }
    for (int j = 0; j < 4; j++) for (I d = 0; d < D; d++) ds[j * Q + d] = c[0][j] * gn[d] + c[1][j] * gn[Q + d] + c[2][j] * gn[2 * Q + d] + c[3][j] * gn[3 * Q + d];
    router_bwd(s, w, Wr, mn, dm, ds, dw, dWr, D, t.data(), t2.data());
  }
}

// Correct: k = router(act) . Wc[4][4]^T + 1;  S_i = Pr_i + (act - Pr_0) k_i.  S0: a second copy of S_0 for the PLE branch
API correct_fwd(In Pr, In act, In w, In Wr, In Wc, Out S, Out S0, Out m, I N, I D) {
  I Q = N * D;
  for (I n = 0; n < N; n++) {
    const float *p = Pr + n * D, *a = act + n * D; float *s = S + n * D, *mn = m + n * 4; router(a, w, Wr, mn, D);
    for (int i = 0; i < 4; i++) {
      In q = Wc + i * 4; float k = 1 + q[0] * mn[0] + q[1] * mn[1] + q[2] * mn[2] + q[3] * mn[3];
      for (I d = 0; d < D; d++) s[i * Q + d] = p[i * Q + d] + (a[d] - p[d]) * k;
    }
    std::memcpy(S0 + n * D, s, D * sizeof(float));
  }
}
API correct_bwd(In Pr, In act, In w, In Wr, In Wc, In m, In g, In g0, Out dPr, Out dact, Out dw, Out dWr, Out dWc, I N, I D) {
  I Q = N * D; std::vector<float> t(D), t2(D);
  for (I n = 0; n < N; n++) {
    const float *p = Pr + n * D, *a = act + n * D, *gn = g + n * D, *h = g0 + n * D, *mn = m + n * 4; float *dp = dPr + n * D, *da = dact + n * D; float k[4], dm[4] = {0, 0, 0, 0};
    for (int i = 0; i < 4; i++) {
      In q = Wc + i * 4; Out dq = dWc + i * 4; k[i] = 1 + q[0] * mn[0] + q[1] * mn[1] + q[2] * mn[2] + q[3] * mn[3];
      float dk = 0; for (I d = 0; d < D; d++) dk += gn[i * Q + d] * (a[d] - p[d]);
      if (i == 0) for (I d = 0; d < D; d++) dk += h[d] * (a[d] - p[d]);
      for (int j = 0; j < 4; j++) { dm[j] += dk * q[j]; dq[j] += dk * mn[j]; }
    }
    for (I d = 0; d < D; d++) {
      float g00 = gn[d] + h[d], s = g00 * k[0] + gn[Q + d] * k[1] + gn[2 * Q + d] * k[2] + gn[3 * Q + d] * k[3];
      da[d] = s; dp[d] = g00 - s; dp[Q + d] = gn[Q + d]; dp[2 * Q + d] = gn[2 * Q + d]; dp[3 * Q + d] = gn[3 * Q + d];
    }
    router_bwd(a, w, Wr, mn, dm, da, dw, dWr, D, t.data(), t2.data());
  }
}
