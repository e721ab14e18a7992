import react from '@vitejs/plugin-react';
import { defineConfig, loadEnv } from 'vite';

/** `npm run dev -w apps/console` serves the page with hot reload and passes API calls on to a running control plane. */
export default defineConfig(({ mode }) => {
  const controlPlane = loadEnv(mode, '.', 'MATFLEET_').MATFLEET_CONSOLE_PROXY ?? 'http://127.0.0.1:7080';
  return {
    plugins: [react()],
    build: { outDir: 'dist', target: 'es2022', assetsInlineLimit: 0, chunkSizeWarningLimit: 700 },
    server: {
      host: '127.0.0.1',
      proxy: { '/api': controlPlane, '/graphql': { target: controlPlane, ws: true } },
    },
  };
});
