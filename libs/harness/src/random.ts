export { seededRandom } from '@matfleet/model';
